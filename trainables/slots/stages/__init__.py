"""Stages of a run that slots do while they are up: teacher, its preparation, answers, shards of the cache.

The driver asks for them through the broker, as it asks for students.
"""
