"""Objectives that compare representations: features, relations between samples, contrast, rotations.

Each is one file, as those of logits are; formulas that several share are in `terms/`.
"""
