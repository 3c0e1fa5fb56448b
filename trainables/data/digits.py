"""scikit-learn's 8x8 handwritten digits: 1797 images that ship inside a wheel."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from trainables.config.data import DataConfig
from trainables.data.hashing import first_by_hash, salt_of
from trainables.data.records import SourceImages, SourcePart

_TEST_SALT: Final = salt_of("digits/test")
_LARGEST_VALUE: Final = 16


def read_digits(config: DataConfig, part: SourcePart) -> SourceImages:
    """Grey 8x8 images, scaled from 0..16 to 0..255.

    The set has no test part of its own: a fifth of each class, by hashed row, is set apart for good. Rows
    keep their order within each part.
    """
    bunch = load_digits()
    labels = np.asarray(bunch.target, dtype=np.int64)
    images = np.rint(np.asarray(bunch.images) * 255 / _LARGEST_VALUE).astype(np.uint8)
    is_test = np.zeros(len(labels), dtype=np.bool_)
    is_test[_test_rows(labels)] = True
    rows = np.flatnonzero(is_test if part is SourcePart.TEST else ~is_test)
    return SourceImages(
        images=torch.from_numpy(images[rows]).unsqueeze(1),
        labels=torch.from_numpy(labels[rows]),
        classes=tuple(str(name) for name in bunch.target_names),
    )


def _test_rows(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    per_class = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        per_class.append(first_by_hash(rows, round(len(rows) / 5), salt=_TEST_SALT))
    return np.concatenate(per_class)
