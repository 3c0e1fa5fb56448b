"""Hyper-parameters of the objectives without a teacher in which networks teach each other, or one itself.

The maths: trainables/objectives/mutual.
"""
