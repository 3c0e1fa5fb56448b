"""Replayable augmentation: `draw` makes a table of parameters, `render` applies it to a batch of images."""
