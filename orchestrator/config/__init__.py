"""The two files that a user writes, experiment and search space.

Here are their schema, the reader that knows each line, the checks of both together, and the words of every
error.
"""
