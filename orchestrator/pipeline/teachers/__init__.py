"""Several teachers in the place of one: each is made as if it were the only one, then they are asked as one.

What holds for one teacher holds for each of them, so the stages of one are given here as functions.
"""
