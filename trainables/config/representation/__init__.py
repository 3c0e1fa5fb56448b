"""Hyper-parameters of the objectives that compare representations, a module a family.

Each says which features it asks for, and with which of its values.
"""
