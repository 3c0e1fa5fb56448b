"""Objectives that compare representations: features, relations between samples, contrast, rotations."""
