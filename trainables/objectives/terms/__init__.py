"""Formulas that several objectives share: divergences, correlations, directions, comparisons, relations."""
