"""Which image files a part of an image folder holds: names and sizes, and nothing of what is in them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from trainables.config.data import SourcePart
from trainables.data.pictures import Encoded
from trainables.errors import DataError
from trainables.foreign_files import in_characters, reason_of
from trainables.image_files import SUFFIXES, is_image_name

LAYOUT: Final = (
    "expected train/<class>/<image> and test/<class>/<image> below `root`, or what else `layout` names"
)
MAX_THREADS: Final = 16
_NAMED: Final = 5
_END: Final = b"\0"  # the one byte that no path can hold

# N = image files


class Names(Sequence[str]):
    """Many paths in little memory: one after the other in one block of bytes."""

    def __init__(self, block: bytes) -> None:
        """Paths as `os.fsencode` gives them, each with a zero byte behind it."""
        self.block = block
        ends = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == 0)
        self._edges = np.concatenate([[0], ends + 1])

    @classmethod
    def of(cls, paths: Sequence[str]) -> Names:
        """These paths."""
        return cls(b"".join(os.fsencode(path) + _END for path in paths))

    def __len__(self) -> int:
        return len(self._edges) - 1

    def __getitem__(self, row: int) -> str:  # type: ignore[override]  # no slices
        return os.fsdecode(self.encoded(row)[:-1])

    def encoded(self, row: int) -> bytes:
        """The bytes of one path, with the zero byte behind it."""
        return self.block[self._edges[row] : self._edges[row + 1]]


class Places(Protocol):
    """Where images lie that are no files of their own."""

    def place(self, row: int) -> Encoded:
        """That of a row."""
        ...


@dataclass(frozen=True)
class Listing:
    """The image files of a part, in the order of their paths in its folder, compared as text with /.

    Images that are no files of their own have names all the same, and are in the order of what holds them.
    """

    folder: Path
    names: Names
    labels_N: NDArray[np.int64]
    bytes_N: NDArray[np.int64]
    changed_ns_N: NDArray[np.int64]
    """When file or directory entry were last changed, in ns since the epoch; no program can set it back."""
    classes: tuple[str, ...]
    places: Places | None = None
    """None where each image is a file."""
    what: str = ""
    """Tells listings of one folder apart."""

    def __len__(self) -> int:
        return len(self.labels_N)

    def path(self, row: int) -> Path:
        """The file of a row."""
        return self.folder / self.names[row]

    def image(self, row: int) -> Encoded:
        """Where the image of a row can be read."""
        return self.path(row) if self.places is None else self.places.place(row)

    def subset(self, rows_N: NDArray[np.int64], what: str) -> Listing:
        """Some of the images, in this order."""
        return replace(
            self,
            names=Names(b"".join(self.names.encoded(row) for row in rows_N.tolist())),
            labels_N=self.labels_N[rows_N],
            bytes_N=self.bytes_N[rows_N],
            changed_ns_N=self.changed_ns_N[rows_N],
            places=None if self.places is None else _Chosen(self.places, rows_N),
            what=what,
        )

    def told(self, row: int) -> str:
        """How a message names the file of a row."""
        return in_characters(str(self.path(row)))


@dataclass(frozen=True)
class _Chosen:
    places: Places
    rows_N: NDArray[np.int64]

    def place(self, row: int) -> Encoded:
        return self.places.place(int(self.rows_N[row]))


def list_part(root: Path, part: SourcePart, *, test: str = SourcePart.TEST.value) -> Listing:
    """The image files of one part; classes are the sorted names of the folders in root/train.

    Hidden files and other suffixes than `SUFFIXES` are passed over.

    Raises:
        DataError: a folder is missing or empty, or test has other classes than train.
    """
    classes = _class_names(root / SourcePart.TRAIN.value)
    if part is SourcePart.TRAIN:
        return list_classes(root / SourcePart.TRAIN.value, classes)
    _refuse_other_classes(root / test, classes)
    return list_classes(root / test, classes)


def list_classes(folder: Path, classes: Sequence[str] | None = None) -> Listing:
    """The image files of a folder with a folder for each class, by default all that it holds.

    Raises:
        DataError: a folder is missing or empty.
    """
    classes = _class_names(folder) if classes is None else classes
    # The order of whole paths: a class's name counts with the slash behind it.
    order = sorted(range(len(classes)), key=lambda label: f"{classes[label]}/")
    with ThreadPoolExecutor(min(MAX_THREADS, len(classes))) as pool:
        found = list(pool.map(lambda label: _list_class(folder, classes[label]), order))
    counts = [len(sizes_2N[0]) for _, sizes_2N in found]
    sizes_2N = np.concatenate([sizes for _, sizes in found], axis=1)
    return Listing(
        folder=folder,
        names=Names(b"".join(names.block for names, _ in found)),
        labels_N=np.repeat(np.array(order, dtype=np.int64), counts),
        bytes_N=sizes_2N[0],
        changed_ns_N=sizes_2N[1],
        classes=_as_text(classes),
    )


def _as_text(folders: Sequence[str]) -> tuple[str, ...]:
    """Names of classes, which records and tables hold; those of folders can be any bytes."""
    names = tuple(map(in_characters, folders))
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"two class folders are both written {twice!r}; rename one of them")
    return names


def list_unlabelled(folder: Path) -> Listing:
    """The image files of a folder, at any depth and of no class, in the order of their paths.

    Raises:
        DataError: there is no such folder, it cannot be listed, or it holds no image.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; `unlabelled.root` is a folder with images, at any depth")
    names, sizes_2N = _list_class(folder.parent, folder.name)
    return Listing(
        folder=folder.parent,
        names=names,
        labels_N=np.full(len(names), -1, dtype=np.int64),
        bytes_N=sizes_2N[0],
        changed_ns_N=sizes_2N[1],
        classes=(),
    )


def _class_names(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; {LAYOUT}")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise DataError(f"{folder} holds no folder, and so no class; {LAYOUT}")
    return tuple(names)


def _refuse_other_classes(folder: Path, classes: Sequence[str]) -> None:
    found = set(_class_names(folder))
    if found != set(classes):
        lacking = sorted(set(classes) - found)
        extra = sorted(found - set(classes))
        raise DataError(
            f"{folder} has other classes than train: missing {_named(lacking)} ({len(lacking)}), "
            f"unknown {_named(extra)} ({len(extra)}); both need the same class folders"
        )


def _named(names: Sequence[str]) -> list[str]:
    return list(map(in_characters, names[:_NAMED]))


def _list_class(folder: Path, name: str) -> tuple[Names, NDArray[np.int64]]:
    """Relative paths of a class's images in order, and 2xN: their bytes, and when they were changed."""
    try:
        files = sorted(_image_files(folder, name))
    except OSError as error:
        raise DataError(f"cannot list {in_characters(str(folder / name))}: {reason_of(error)}") from error
    if not files:
        raise DataError(
            f"{in_characters(str(folder / name))} holds no image ({', '.join(sorted(SUFFIXES))}); add some, "
            "or remove the folder"
        )
    sizes_N2 = np.array([sizes for _, *sizes in files], dtype=np.int64)
    return Names.of([path for path, *_ in files]), sizes_N2.T


def _image_files(folder: Path, name: str) -> Iterator[tuple[str, int, int]]:
    """Path relative to the folder, bytes and time of change of each image file below folder/name.

    Links are followed; one that leads nowhere is an image that cannot be read.
    """
    waiting = [name]
    while waiting:
        inner = waiting.pop()
        with os.scandir(folder / inner) as entries:
            for entry in entries:
                path = f"{inner}/{entry.name}"
                if entry.is_dir():
                    _refuse_circle(entry)
                    waiting.append(path)
                elif not is_image_name(entry.name):
                    continue
                elif entry.is_file():
                    facts = entry.stat()
                    yield path, facts.st_size, facts.st_ctime_ns
                elif entry.is_symlink():
                    yield path, 0, entry.stat(follow_symlinks=False).st_ctime_ns


def _refuse_circle(entry: os.DirEntry[str]) -> None:
    if entry.is_symlink():
        target, here = Path(entry.path).resolve(), Path(entry.path).parent.resolve()
        if here.is_relative_to(target):
            link, there = in_characters(entry.path), in_characters(str(target))
            raise DataError(f"{link} links to {there}, which holds the link itself; remove the link")
