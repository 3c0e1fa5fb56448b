"""scikit-learn's 8x8 handwritten digits: 1797 images that ship inside its wheel.

The file is read without importing scikit-learn, which takes seconds in every worker of a run.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from trainables.config.data import DataConfig, SourcePart
from trainables.data.splits import SourceImages
from trainables.errors import DataError
from trainables.seeds import first_by_hash, salt_of

_TEST_SALT: Final = salt_of("digits/test")
_LARGEST_VALUE: Final = 16
_SIDE: Final = 8


def read_digits(config: DataConfig, part: SourcePart) -> SourceImages:
    """Grey 8x8 images, scaled from 0..16 to 0..255.

    The set has no test part of its own: a fifth of each class, by hashed row, is set apart for good. Rows
    keep their order within each part.
    """
    table = np.loadtxt(_file(), delimiter=",")
    labels = table[:, -1].astype(np.int64)
    images = np.rint(table[:, :-1].reshape(-1, _SIDE, _SIDE) * 255 / _LARGEST_VALUE).astype(np.uint8)
    is_test = np.zeros(len(labels), dtype=np.bool_)
    is_test[_test_rows(labels)] = True
    rows = np.flatnonzero(is_test if part is SourcePart.TEST else ~is_test)
    return SourceImages(
        images=torch.from_numpy(images[rows]).unsqueeze(1),
        labels=torch.from_numpy(labels[rows]),
        classes=tuple(str(label) for label in np.unique(labels)),
    )


def _file() -> Path:
    found = importlib.util.find_spec("sklearn")
    folders = list(found.submodule_search_locations or []) if found else []
    for folder in folders:
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            return file
    raise DataError(
        "digits.csv.gz of scikit-learn was not found; install the pinned scikit-learn (constraints.txt)"
    )


def _test_rows(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    per_class = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        per_class.append(first_by_hash(rows, round(len(rows) / 5), salt=_TEST_SALT))
    return np.concatenate(per_class)
