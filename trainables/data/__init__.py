"""Data: from a configuration to train, selection and test splits in memory."""

from trainables.data.loading import load_test, load_training
from trainables.data.splits import ImageSplit, TrainingData

__all__ = ["ImageSplit", "TrainingData", "load_test", "load_training"]
