"""The images of an unlabelled source, before any is left out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from trainables.config.data import DataConfig, UnlabelledConfig
from trainables.data.folder_images import CHANNELS, FolderImages
from trainables.data.folder_index import index_of
from trainables.data.folder_listing import MAX_THREADS, Listing, list_unlabelled
from trainables.data.pictures import read_square, unreadable
from trainables.data.resizing import resized
from trainables.data.user import read_images
from trainables.errors import DataError
from trainables.foreign_files import Unreadable, foreign_file
from trainables.local_files import expanded

GB: Final = 10**9

Shape = tuple[int, int, int]
"""Channels, height, width."""

# N = images, S = side in pixels


@dataclass(frozen=True)
class Found:
    """Images of one shape, and where each stands in its source."""

    images: Tensor | FolderImages
    """uint8 NxCxHxW."""
    places_N: NDArray[np.int64]
    """Ascending; those that cannot be read are counted too."""
    unreadable: int = 0


def read_unlabelled(config: DataConfig, unlabelled: UnlabelledConfig, shape: Shape) -> Found:
    """The images of a folder, or of a factory, in the shape of the labelled ones.

    A folder's are in the order of their sorted paths, in memory or in their files as `memory_gb` says.

    Raises:
        DataError: there are none, they have another shape, or cannot be read.
        ConfigError: the factory cannot be found or called.
        StorageError: the node's scratch folder cannot be written.
    """
    if unlabelled.root is not None:
        found = _read_folder(config, expanded(unlabelled.root), shape)
    else:
        images = read_images(str(unlabelled.factory), unlabelled.arguments)
        images = images if config.image_size is None else resized(images, config.image_size, config.resize)
        found = Found(images, np.arange(len(images)))
    own = tuple(int(side) for side in found.images.shape[1:])
    if own != shape:
        raise DataError(
            f"unlabelled images of {unlabelled.source} have the shape {own}, labelled ones {shape} "
            "(channels, height, width); bring them to one size, or set `image_size`"
        )
    return found


def _read_folder(config: DataConfig, root: Path, shape: Shape) -> Found:
    channels, height, width = shape
    if height != width or channels not in (1, CHANNELS):
        raise DataError(
            f"labelled images have the shape {shape}; a folder of unlabelled ones is brought to squares of 1 "
            "or 3 channels: set `image_size`, or give a `factory`"
        )
    listing = list_unlabelled(root)
    if len(listing) * channels * height * width <= config.memory_gb * GB:
        images, faults = _decoded(config, listing, height, is_grey=channels == 1)
        rows_N = _readable(config, listing, faults)
        return Found(torch.from_numpy(images[rows_N]), rows_N, len(listing) - len(rows_N))
    if channels != CHANNELS:
        raise DataError(
            f"{len(listing):,} unlabelled grey images take more than data.memory_gb, "
            f"{config.memory_gb:g}, and only images of 3 channels are decoded batch by batch; raise it"
        )
    index = index_of(listing, decode=config.skip_unreadable)
    rows_N = _readable(config, listing, index.faults)
    return Found(FolderImages(index, rows_N, height, config.resize), rows_N, len(listing) - len(rows_N))


def _readable(config: DataConfig, listing: Listing, faults: Mapping[int, str]) -> NDArray[np.int64]:
    failures = [f"{listing.told(row)} ({faults[row]})" for row in sorted(faults)]
    if failures and not config.skip_unreadable:
        raise unreadable(failures, len(listing))
    return np.setdiff1d(np.arange(len(listing)), np.array(sorted(faults), dtype=np.int64))


def _decoded(
    config: DataConfig, listing: Listing, side: int, *, is_grey: bool
) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """uint8 NxCxSxS, and why some rows are not filled."""
    images = np.empty((len(listing), 1 if is_grey else CHANNELS, side, side), dtype=np.uint8)

    def decode(row: int) -> str | None:
        try:
            with foreign_file(Unreadable):
                pixels = read_square(listing.image(row), side, resize=config.resize)
                images[row] = _grey(pixels) if is_grey else pixels
        except Unreadable as error:
            return str(error)
        return None

    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        faults = {row: fault for row, fault in enumerate(pool.map(decode, range(len(listing)))) if fault}
    return images, faults


def _grey(pixels_CSS: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """1xSxS; a picture that was grey before it became RGB is what it was."""
    picture = Image.fromarray(np.ascontiguousarray(pixels_CSS.transpose(1, 2, 0)))
    return np.asarray(picture.convert("L"))[None]
