"""Replayable augmentation: `draw` makes a table of parameters, `render` applies it to a batch of images.

A sample's parameters depend on recipe, seed, view and id alone, so that every process sees the same view.
"""
