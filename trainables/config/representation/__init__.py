"""Hyper-parameters of the objectives that compare representations, a module a family.

The maths: trainables/objectives/representation.
"""
