"""Mean and standard deviation of pixels, per channel."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from trainables.data.splits import ImageSplit
from trainables.errors import StorageError
from trainables.foreign_files import Unreadable, foreign_file
from trainables.local_files import node_scratch, replace_file
from trainables.seeds import first_by_hash, salt_of

Moments = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, of pixels in [0, 1]."""

MEASURED_IMAGES: Final = 2048
"""Of images in files, so many are decoded: the mean is then known to some 0.005."""
_SALT: Final = salt_of("data/measured")
_CHUNK: Final = 64
_SMALLEST_STD: Final = 1 / 255  # one grey level: a channel of one colour must not divide by zero
_LARGEST_BYTE: Final = 255


def measured(images_NCHW: Tensor) -> Moments:
    """Mean and standard deviation per channel of uint8 images, as of pixels in [0, 1]; std at least 1/255.

    Both come from a histogram in whole numbers, so every machine finds the same digits.
    """
    return _moments(_histograms(images_NCHW))


def measured_in_files(split: ImageSplit, digest: str) -> Moments:
    """The same of some images of a split, which their ids choose: to decode all would take an epoch's time.

    This node remembers them by the digest of the split.

    Raises:
        DataError: images cannot be decoded.
        StorageError: the node's scratch folder cannot be written.
    """
    file = node_scratch() / "folders" / f"{digest[:32]}-{MEASURED_IMAGES}.json"
    known = _remembered(file)
    if known is not None:
        return known
    chosen = first_by_hash(split.ids.numpy(), MEASURED_IMAGES, salt=_SALT)
    rows = torch.from_numpy(np.searchsorted(split.ids.numpy(), chosen))
    histograms_CL = torch.zeros(split.images.shape[1], _LARGEST_BYTE + 1, dtype=torch.int64)
    for chunk in split.each(split.images.__getitem__, torch.split(rows, _CHUNK)):
        histograms_CL += _histograms(chunk)
    moments = _moments(histograms_CL)
    _remember(file, moments)
    return moments


def _histograms(images_NCHW: Tensor) -> Tensor:
    """int64 Cx256: how often each level occurs in each channel."""
    levels = _LARGEST_BYTE + 1
    channels = range(images_NCHW.shape[1])
    return torch.stack([torch.bincount(images_NCHW[:, c].flatten(), minlength=levels) for c in channels])


def _moments(histograms_CL: Tensor) -> Moments:
    means, stds = [], []
    for histogram in histograms_CL.tolist():
        count = sum(histogram)
        total = sum(value * times for value, times in enumerate(histogram))
        total_squares = sum(value**2 * times for value, times in enumerate(histogram))
        variance = (count * total_squares - total**2) / count**2
        means.append(total / count / _LARGEST_BYTE)
        stds.append(max(variance**0.5 / _LARGEST_BYTE, _SMALLEST_STD))
    return tuple(means), tuple(stds)


def _remembered(file: Path) -> Moments | None:
    with suppress(Unreadable), foreign_file(Unreadable):  # none, or damaged: it is measured again
        mean, std = json.loads(file.read_text())
        return tuple(map(float, mean)), tuple(map(float, std))
    return None


def _remember(file: Path, moments: Moments) -> None:
    try:
        replace_file(file, json.dumps(moments).encode())
    except OSError as error:
        raise StorageError(f"cannot write {file}: {error}; free some space there, or set TMPDIR") from error
