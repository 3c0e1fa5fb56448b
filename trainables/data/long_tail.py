"""Long-tailed training splits: each class keeps fewer samples than the one before it."""

# N = samples

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trainables.seeds import first_by_hash, salt_of

_SALT: Final = salt_of("data/imbalance")
# A power is rounded: 4900 · 49^-1 comes out a little below 100.
_ROUNDING: Final = 1e-12


def long_tailed(
    ids_N: NDArray[np.int64], labels_N: NDArray[np.int64], *, n_classes: int, imbalance: float
) -> NDArray[np.int64]:
    """The ids that stay, ascending, when the first class has `imbalance` times the samples of the last.

    Class c keeps at most n · imbalance^(-c / (C - 1)) samples, at least one, with n the size of the largest
    class (the exponential profile of Cao et al., "LDAM", NeurIPS 2019). Which ones is decided by their ids.
    """
    largest = int(np.bincount(labels_N, minlength=n_classes).max(initial=0))
    kept = []
    for label in range(n_classes):
        share = imbalance ** -(label / max(n_classes - 1, 1))
        count = max(math.floor(largest * share * (1 + _ROUNDING)), 1)
        kept.append(first_by_hash(ids_N[labels_N == label], count, salt=_SALT))
    return np.sort(np.concatenate(kept))
