"""Where a run happens: Ray sessions, capacity, storage and job submission.

Nothing here knows of distillation: what it needs to know is passed as values.
"""
