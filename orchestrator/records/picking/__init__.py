"""Which finalist is the champion, by which figures, and what stands in the way where none can be.

Pure functions of records and figures of the selection split; the test split has no part in them.
"""
