"""The table of students, and what it, pages and sentences call them.

Pure functions of a summary.
"""
