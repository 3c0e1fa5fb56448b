"""Formulas and layers that several objectives of representations share: pure functions, and small modules."""
