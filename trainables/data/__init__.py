"""Data: from a configuration to train, selection and test splits.

Each sample has a stable id; images lie in memory, or in files where they are too many.
"""

from trainables.data.loading import load_test, load_training
from trainables.data.splits import ImageSplit, TrainingData

__all__ = ["ImageSplit", "TrainingData", "load_test", "load_training"]
