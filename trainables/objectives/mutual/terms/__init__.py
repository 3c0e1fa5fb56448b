"""Formulas and layers of networks that teach each other: pure functions, and small modules."""
