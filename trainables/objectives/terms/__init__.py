"""Formulas that several objectives share: divergences, correlations, directions, comparisons, relations.

Pure functions of tensors; each docstring names its paper and equation.
"""
