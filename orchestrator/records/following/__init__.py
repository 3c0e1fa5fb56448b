"""A run that another process holds, seen from outside.

Its ledger is read as it grows, and whether somebody holds its folder is looked up; nothing is written.
"""
