"""A user's own pictures: root/train/<class>/<image> and root/test/<class>/<image>."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from trainables.config.data import DataConfig, DataName, SourcePart
from trainables.data.folder_images import CHANNELS, FolderImages
from trainables.data.folder_index import Told, index_of
from trainables.data.folder_listing import MAX_THREADS, Listing
from trainables.data.layouts.listing import list_images
from trainables.data.pictures import NAMED, read_square, unreadable
from trainables.data.splits import SourceImages
from trainables.errors import DataError
from trainables.foreign_files import Unreadable, foreign_file
from trainables.local_files import expanded

logger = logging.getLogger(__name__)

GB: Final = 10**9

# N = images


def read_image_folder(config: DataConfig, part: SourcePart) -> SourceImages:
    """RGB images of one part, `image_size` on each side: in memory, or in their files if they take too much.

    Classes are the sorted names of the folders in root/train. Images are in the order of their sorted paths
    relative to the part's folder (compared as text with /), and a sample's id is its place among them, those
    that are left out included; so it changes when files are added before it. Hidden files and other suffixes
    than `SUFFIXES` are passed over.

    Images that cannot be read stop everything, or are left out if `skip_unreadable` says so. Of a part that
    stays in its files, those whose header or end is sound are found only when they are decoded; with
    `skip_unreadable` each image is therefore decoded once when a node first sees it.

    Raises:
        DataError: a folder is missing or empty, test has other classes than train, or images cannot be read.
        StorageError: the node's scratch folder cannot be written.
    """
    listing, side = _listing(config, part), _side(config)
    images: torch.Tensor | FolderImages
    if stays_in_files(config, len(listing)):
        index = index_of(listing, decode=config.skip_unreadable)
        rows_N = _readable(config, listing, index.faults)
        images = FolderImages(index, rows_N, side)
    else:
        decoded, faults = _decoded(listing, side)
        rows_N = _readable(config, listing, faults)
        images = torch.from_numpy(decoded[rows_N] if faults else decoded)
    return SourceImages(
        images=images,
        labels=torch.from_numpy(listing.labels_N[rows_N]),
        classes=listing.classes,
        ids=torch.from_numpy(rows_N),
        left_out=len(listing) - len(rows_N),
    )


def index_folder(
    config: DataConfig, told: Told, part: SourcePart = SourcePart.TRAIN, *, decode: bool = False
) -> None:
    """Look at the images of a part of a large folder now, so that loading finds them looked at.

    Nothing happens for other data sets, for folders that fit in memory, and for those that are not on this
    machine, which loading refuses. `told` is called with (images done, images to look at). With `decode` each
    image is decoded once, so that all that cannot be are found.

    Raises:
        DataError: as for `read_image_folder`; except, without `decode`, for unreadable images.
        StorageError: the node's scratch folder cannot be written.
    """
    if config.name is not DataName.IMAGE_FOLDER or not expanded(str(config.root)).is_dir():
        return
    listing = _listing(config, part)
    if stays_in_files(config, len(listing)):
        index = index_of(listing, decode=decode or config.skip_unreadable, told=told)
        if decode:
            _readable(config, listing, index.faults)


def file_hashes(config: DataConfig, part: SourcePart) -> NDArray[np.uint64]:
    """A hash of each file of a part, by the sample's id; files are read where this node does not know them.

    Raises:
        DataError: as for `read_image_folder`; except for unreadable images.
        StorageError: the node's scratch folder cannot be written.
    """
    return index_of(_listing(config, part)).content_hashes()


def stays_in_files(config: DataConfig, count: int) -> bool:
    """Whether so many images take more memory than the configuration allows; the same on every machine."""
    return count * CHANNELS * _side(config) ** 2 > config.memory_gb * GB


def _listing(config: DataConfig, part: SourcePart) -> Listing:
    return list_images(config, part).images


def layout_in_words(config: DataConfig) -> str:
    """How the images of a folder lie, and which are the test part.

    Raises:
        DataError: as for `read_image_folder`.
    """
    return list_images(config, SourcePart.TEST).words


def _side(config: DataConfig) -> int:
    if config.image_size is None:
        raise DataError("image_folder needs `image_size`, the side in pixels to resize to")
    return config.image_size


def _readable(config: DataConfig, listing: Listing, faults: Mapping[int, str]) -> NDArray[np.int64]:
    """The rows of all images without a fault."""
    failures = [f"{listing.told(row)} ({faults[row]})" for row in sorted(faults)]
    if failures and not config.skip_unreadable:
        raise unreadable(failures, len(listing))
    if failures:
        more = ", ..." if len(failures) > NAMED else ""
        logger.warning(
            "%d of %d images cannot be read and are left out: %s%s",
            len(failures),
            len(listing),
            "; ".join(failures[:NAMED]),
            more,
        )
    return np.setdiff1d(np.arange(len(listing)), np.array(sorted(faults), dtype=np.int64))


def _decoded(listing: Listing, side: int) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """uint8 NxCxHxW, and why some rows are not filled.

    Decoded in threads, since Pillow lets go of the interpreter while it works.
    """
    images = np.empty((len(listing), CHANNELS, side, side), dtype=np.uint8)

    def decode(row: int) -> str | None:
        try:
            with foreign_file(Unreadable):
                images[row] = read_square(listing.image(row), side)
        except Unreadable as error:
            return str(error)
        return None

    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        faults = {row: fault for row, fault in enumerate(pool.map(decode, range(len(listing)))) if fault}
    return images, faults
