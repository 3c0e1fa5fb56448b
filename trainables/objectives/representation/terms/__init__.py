"""Formulas and auxiliary layers that objectives of representations share."""
