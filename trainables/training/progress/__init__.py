"""How far a course is, and its files: the epochs that are over, the best of them, the state to go on from.

A course is judged and kept by the same rules whether it is trained alone or in a pack.
"""
