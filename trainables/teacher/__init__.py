"""Loads the teacher and asks it: for the cache, beside a student, and to prove a cache.

The same network answers in all three, known by one digest.
"""
