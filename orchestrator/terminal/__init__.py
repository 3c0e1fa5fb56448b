"""What a person sees in a terminal: messages, tables, progress.

How percentages, times and hyper-parameters are written stands here once.
"""
