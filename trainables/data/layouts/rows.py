"""What every reader of a layout gives: images with names, labels as text, and places."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trainables.data.folder_listing import Listing, Names, Places
from trainables.errors import DataError
from trainables.foreign_files import in_characters
from trainables.seeds import falls_below, hash_of_name, salt_of

_CUT_SALT: Final = salt_of("data/test_fraction")
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,17}")
_NAMED: Final = 5

# N = images


@dataclass(frozen=True)
class Stretch:
    """An image within a larger file."""

    path: Path
    first: int
    """Where it begins, in bytes."""
    count: int

    def read_bytes(self) -> bytes:
        """All of it.

        Raises:
            OSError: the file cannot be read, or ends before.
        """
        with self.path.open("rb", buffering=0) as file:
            content = os.pread(file.fileno(), self.count, self.first)
        if len(content) < self.count:
            raise OSError(f"{self.path.name} ends before the image does; it was changed or cut short")
        return content


@dataclass(frozen=True)
class Rows:
    """Images of one part, or of both."""

    folder: Path
    names: Names
    """By which messages, digests and the cut of a test part know them."""
    labels: Sequence[str]
    bytes_N: NDArray[np.int64]
    changed_ns_N: NDArray[np.int64]
    places: Places | None = None
    """None where names are paths below the folder."""
    classes: tuple[str, ...] | None = None
    """In the order that the source itself gives; none where it gives none."""


def class_names(rows: Rows) -> tuple[str, ...]:
    """The source's own, or all labels: numbers by size, others as text."""
    if rows.classes is not None:
        return rows.classes
    found = set(rows.labels)
    by_size = all(_NUMBER.fullmatch(label) for label in found)
    return tuple(sorted(found, key=int) if by_size else sorted(found))


def listing(rows: Rows, classes: Sequence[str], *, where: str, what: str) -> Listing:
    """The same as numbers of these classes, which are the training part's.

    Raises:
        DataError: a label is none of them; it is named.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    unknown = sorted(set(rows.labels) - set(numbers))
    if unknown:
        row = next(row for row, label in enumerate(rows.labels) if label not in numbers)
        raise DataError(
            f"{where}: {[*map(in_characters, unknown[:_NAMED])]} ({len(unknown)}) are not among the "
            f"{len(classes)} classes of the training part, such as that of {in_characters(rows.names[row])}; "
            "correct the labels, or add training images of them"
        )
    return Listing(
        folder=rows.folder,
        names=rows.names,
        labels_N=np.array([numbers[label] for label in rows.labels], dtype=np.int64),
        bytes_N=rows.bytes_N,
        changed_ns_N=rows.changed_ns_N,
        classes=tuple(map(in_characters, classes)),
        places=rows.places,
        what=what,
    )


def cut_off(names: Names, fraction: float) -> NDArray[np.bool_]:
    """N: which images are set apart to test, by the hash of each one's name alone.

    So images that are added later move none of the others.
    """
    hashes = np.array([hash_of_name(names.encoded(row)) for row in range(len(names))], dtype=np.int64)
    return falls_below(hashes, fraction, salt=_CUT_SALT)
