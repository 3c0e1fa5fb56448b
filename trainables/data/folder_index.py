"""What is known of every file of an image folder without decoding it, remembered by this node.

The first look reads each file once: the hash of its content, and the size that its header tells. That is kept
in local scratch, so that the next process only compares the files' sizes and times of change. A look that was
broken off goes on.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from trainables.data.folder_listing import MAX_THREADS, Listing, Names
from trainables.data.pictures import Picture, examine
from trainables.errors import StorageError
from trainables.foreign_files import Unreadable, foreign_file, in_characters
from trainables.local_files import node_scratch, replacing

logger = logging.getLogger(__name__)

Told = Callable[[int, int], None]
"""Called with (images done, images to look at)."""

FORMAT: Final = 2
"""Goes up when the columns change, or what they mean."""
TELL_EVERY_S: Final = 10.0
SAVE_EVERY_S: Final = 60.0
BLOCK: Final = 256

# N = image files


@dataclass(frozen=True)
class FolderIndex:
    """The files of a part and what their headers say, a row each; rows with a fault have no size."""

    listing: Listing
    sides_N2: NDArray[np.int32]
    """Height and width in pixels, upright."""
    orientation_N: NDArray[np.int8]
    """As in EXIF; 1 is upright."""
    sha256_NB: NDArray[np.uint8]
    """Of the files' content."""
    faults: Mapping[int, str]
    """By row, why a file cannot be used."""

    def content_hashes(self) -> NDArray[np.uint64]:
        """N: the first 64 bits of each sha256."""
        return np.ascontiguousarray(self.sha256_NB[:, :8]).view("<u8")[:, 0].astype(np.uint64)


@dataclass
class _Columns:
    """What was found: rows whose `known_N` is 0 were not looked at, with 2 they were decoded too."""

    known_N: NDArray[np.int8]
    sides_N2: NDArray[np.int32]
    orientation_N: NDArray[np.int8]
    sha256_NB: NDArray[np.uint8]
    faults: dict[int, str]

    @classmethod
    def empty(cls, count: int) -> _Columns:
        sha256_NB = np.zeros((count, hashlib.sha256().digest_size), dtype=np.uint8)
        known_N, orientation_N = np.zeros(count, dtype=np.int8), np.ones(count, dtype=np.int8)
        return cls(known_N, np.zeros((count, 2), dtype=np.int32), orientation_N, sha256_NB, {})

    def learn(self, row: int, picture: Picture, *, decoded: bool) -> None:
        """Take over what a look at one file has found."""
        self.known_N[row] = 2 if decoded else 1
        self.sides_N2[row] = picture.height, picture.width
        self.orientation_N[row] = picture.orientation
        self.faults.pop(row, None)
        if picture.fault:
            self.faults[row] = picture.fault
        if picture.sha256:
            self.sha256_NB[row] = np.frombuffer(picture.sha256, dtype=np.uint8)


def index_of(
    listing: Listing, *, decode: bool = False, told: Told | None = None, scratch: Path | None = None
) -> FolderIndex:
    """Look at every file that this node does not know yet, in parallel.

    With `decode` each image is decoded once, so that every file that cannot be is among the faults; without,
    those that look sound from outside are not. Other processes of the node wait meanwhile, and then need not
    look themselves. `told` hears of the progress, which is logged now and then if nobody listens. What was
    found is remembered in the folder `scratch`, by default the node's.

    Raises:
        StorageError: the scratch folder cannot be written.
    """
    folder = (scratch or node_scratch()) / "folders"
    key = hashlib.sha256(
        f"{FORMAT}:{listing.folder.resolve()}{listing.what}".encode(errors="surrogateescape")
    ).hexdigest()
    file = folder / f"{key[:32]}.npz"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            columns = _remembered(file, listing)
            wanted = np.flatnonzero(columns.known_N < (2 if decode else 1))
            saved_at, told = time.monotonic(), told or logged(listing.folder, "images")
            for done in _look(listing, columns, wanted.tolist(), decode=decode):
                told(done, len(wanted))
                if done == len(wanted) or time.monotonic() - saved_at > SAVE_EVERY_S:
                    _save(file, listing, columns)
                    saved_at = time.monotonic()
    except OSError as error:
        raise StorageError(
            f"cannot keep the index of {listing.folder} in {folder}: {error}; free some space there, or set "
            "TMPDIR to a local disk that has it"
        ) from error
    return FolderIndex(listing, columns.sides_N2, columns.orientation_N, columns.sha256_NB, columns.faults)


def _look(listing: Listing, columns: _Columns, rows: Sequence[int], *, decode: bool) -> Iterator[int]:
    """Fill the columns of these rows; gives how many are done after each block."""
    waiting, done = iter(rows), 0
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        while block := list(islice(waiting, BLOCK)):
            pictures = pool.map(lambda row: examine(listing.image(row), decode=decode), block)
            for row, picture in zip(block, pictures, strict=True):
                columns.learn(row, picture, decoded=decode)
            done += len(block)
            yield done


def logged(folder: Path, what: str) -> Told:
    """Logs how far a look at so many images or files has come, every ten seconds."""
    began = told_at = time.monotonic()

    def told(done: int, count: int) -> None:
        nonlocal told_at
        now = time.monotonic()
        if now - told_at > TELL_EVERY_S:
            told_at = now
            left_s = (now - began) / done * (count - done)
            shown = in_characters(str(folder))
            logger.warning("%s: looked at %d of %d %s, %d s left", shown, done, count, what, left_s)

    return told


def _remembered(file: Path, listing: Listing) -> _Columns:
    """What an earlier look found of files that are still the same; the others are unknown."""
    columns = _Columns.empty(len(listing))
    if not file.exists():
        return columns
    try:
        with foreign_file(Unreadable):
            with np.load(file, allow_pickle=False) as kept:
                old = {name: kept[name] for name in kept.files}
            same_N, place_N = _same(listing, Names(old["names"].tobytes()), old)
            columns.known_N[same_N] = old["known"][place_N]
            columns.sides_N2[same_N] = old["sides"][place_N]
            columns.orientation_N[same_N] = old["orientation"][place_N]
            columns.sha256_NB[same_N] = old["sha256"][place_N]
    except Unreadable as error:
        logger.warning("%s is damaged (%s); looking at all images again", file, error)
        return _Columns.empty(len(listing))
    return columns


def _same(
    listing: Listing, names: Names, old: Mapping[str, NDArray[np.int64]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the listing whose files are those of an earlier one, and their rows there."""
    if names.block == listing.names.block:
        rows_N = places_N = np.arange(len(listing))
    else:
        place_of = {names.encoded(place): place for place in range(len(names))}
        found = [place_of.get(listing.names.encoded(row), -1) for row in range(len(listing))]
        rows_N = np.flatnonzero(np.array(found) >= 0)
        places_N = np.array(found, dtype=np.int64)[rows_N]
    same_N = (listing.bytes_N[rows_N] == old["bytes"][places_N]) & (
        listing.changed_ns_N[rows_N] == old["changed_ns"][places_N]
    )
    return rows_N[same_N], places_N[same_N]


def _save(file: Path, listing: Listing, columns: _Columns) -> None:
    known_N = columns.known_N.copy()
    known_N[list(columns.faults)] = 0  # looked at again: storage may have failed, or the file be mended
    with replacing(file) as beside, beside.open("wb") as opened:  # by a path, savez would add a suffix
        np.savez(
            opened,
            names=np.frombuffer(listing.names.block, dtype=np.uint8),
            bytes=listing.bytes_N,
            changed_ns=listing.changed_ns_N,
            known=known_N,
            sides=columns.sides_N2,
            orientation=columns.orientation_N,
            sha256=columns.sha256_NB,
        )
