"""What is done where MLflow is away, refuses, or lets nobody in.

The errors, what is outstanding, the files that are tried again, and the question that a run asks first.
"""
