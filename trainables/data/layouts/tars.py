"""WebDataset's tars: files that share a name up to its first dot are one sample.

Single images are read where they lie in the tar, so its headers are walked through once by a node.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from trainables.data.folder_index import logged
from trainables.data.folder_listing import Names
from trainables.data.layouts.columns import LABEL_NAMES, label_text
from trainables.data.layouts.remembered import Table, remembered, rows_of
from trainables.data.layouts.rows import Rows
from trainables.errors import DataError
from trainables.foreign_files import foreign_file, in_a_line, in_characters
from trainables.image_files import SUFFIXES

LABEL_SUFFIXES: Final = ("cls", "cls.txt", "label", "label.txt")
MAX_LABEL_BYTES: Final = 10**6

Members = dict[str, tuple[int, int]]
"""By suffix, where a file of a sample begins in the tar, and its bytes."""


def read_tars(root: Path, files: Sequence[Path]) -> Rows:
    """The samples of these tars, in the order in which they are written; labels from .cls or .json.

    Raises:
        DataError: a tar is damaged or compressed, or a sample has no image or no label; it is named.
        StorageError: the node's scratch folder cannot be written.
    """
    table, _ = remembered(root, files, ["tars"], lambda _: _look(root, files), packs=False)
    return rows_of(root, table, tuple(files), files)


def _look(root: Path, files: Sequence[Path]) -> Table:
    names: list[str] = []
    labels: list[str] = []
    places: list[tuple[int, int, int]] = []
    told = logged(root, "tars")
    for number, file in enumerate(files):
        within = file.relative_to(root).as_posix()
        with file.open("rb", buffering=0) as opened:
            for key, members in _samples(file):
                where = f"{in_characters(str(file))}, sample {in_characters(key)}"
                image = _image_of(members, where)
                names.append(f"{within}/{key}.{image}")
                labels.append(_label_of(opened.fileno(), members, where))
                places.append((number, *members[image]))
        told(number + 1, len(files))
    if not names:
        raise DataError(f"{in_characters(str(root))}: its tars hold no sample; each is an image and a .cls")
    places_N3 = np.array(places, dtype=np.int64)
    return Table(Names.of(names), Names.of(labels), places_N3[:, 0], places_N3[:, 1], places_N3[:, 2])


def _samples(file: Path) -> Iterator[tuple[str, Members]]:
    """Neighbours with one key belong together, as for WebDataset."""
    key, members = "", Members()
    for name, place in _members(file):
        folder, slash, base = name.rpartition("/")
        stem, _, suffix = base.partition(".")
        if not stem or not suffix:
            continue
        if "\0" in name:  # which ends a name where names are kept
            raise DataError(
                f"{in_characters(str(file))} holds {in_characters(name)}, a name with a zero byte; rename it"
            )
        own = f"{folder}{slash}{stem}"
        if own != key and members:
            yield key, members
            members = Members()
        key = own
        if suffix.lower() in members:
            raise DataError(
                f"{in_characters(str(file))} holds {in_characters(name)} twice; give each sample a name"
            )
        members[suffix.lower()] = place
    if members:
        yield key, members


def _members(file: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    where = in_characters(str(file))
    with (
        foreign_file(lambda why: DataError(f"{where} cannot be read as an uncompressed tar: {why}")),
        tarfile.open(file, "r:") as tar,
    ):
        for member in iter(tar.next, None):
            if member.isreg() and not member.issparse():
                yield member.name, (member.offset_data, member.size)
            tar.members.clear()  # type: ignore[attr-defined]  # or it would keep a million of them


def _image_of(members: Members, where: str) -> str:
    found = [suffix for suffix in members if f".{suffix.rpartition('.')[2]}" in SUFFIXES]
    if len(found) == 1:
        return found[0]
    there = in_a_line(", ".join(members))
    raise DataError(
        f"{where} has {len(found)} images among its files ({there}); a sample is one image "
        f"({', '.join(sorted(SUFFIXES))}) and its label"
    )


def _label_of(descriptor: int, members: Members, where: str) -> str:
    suffix = next((suffix for suffix in (*LABEL_SUFFIXES, "json") if suffix in members), None)
    if suffix is None:
        raise DataError(
            f"{where} has no label: neither .cls nor .json is among its files ({', '.join(members)})"
        )
    first, count = members[suffix]
    if count > MAX_LABEL_BYTES:
        raise DataError(f"{where}: .{suffix} of {count} bytes is no label")
    with foreign_file(lambda why: DataError(f"{where}: .{suffix} cannot be read: {why}")):
        text = os.pread(descriptor, count, first).decode()
        if suffix != "json":
            return label_text(text, f"{where}: .{suffix}")
        record = json.loads(text)
    known = [name for name in ("cls", *LABEL_NAMES) if isinstance(record, dict) and name in record]
    if not known:
        raise DataError(f"{where}: .json has no label (one of cls, {', '.join(LABEL_NAMES)})")
    return label_text(record[known[0]], f"{where}: `{known[0]}`")
