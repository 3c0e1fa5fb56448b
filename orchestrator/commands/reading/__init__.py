"""Commands that read what an experiment left, also while it runs.

None of them trains anything, or starts Ray.
"""
