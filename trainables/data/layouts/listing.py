"""The images of one part of a data set, whatever layout they have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainables.config.data import DataConfig, ImageLayout, SourcePart
from trainables.data.folder_listing import LAYOUT, Listing, list_classes, list_part
from trainables.data.layouts.manifest import read_manifest, read_manifest_of
from trainables.data.layouts.recognise import Found, recognise
from trainables.data.layouts.rows import Rows, class_names, cut_off, listing
from trainables.data.layouts.tables import read_tables, saved_parts
from trainables.data.layouts.tars import read_tars
from trainables.data.roots import root_of
from trainables.errors import DataError
from trainables.foreign_files import in_characters
from trainables.local_files import expanded


@dataclass(frozen=True)
class Listed:
    """A part, and how it was found."""

    images: Listing
    words: str
    """The layout, where the test part comes from, and what is not read."""


def list_images(config: DataConfig, part: SourcePart) -> Listed:
    """The images of one part; classes are those of the training part.

    Raises:
        DataError: the layout is not plain, files are missing or damaged, or the parts have other classes.
        StorageError: the node's scratch folder cannot be written.
    """
    root = root_of(config, remedy=LAYOUT)
    found = recognise(root, config)
    if found.layout is ImageLayout.PARTS:
        test = found.parts[SourcePart.TEST][0].name
        images = list_part(root, part, test=test)
        _refuse_class_without_labels(config, images.folder)
        return Listed(images, _words(found, root, f"{test}/ is the test part"))
    if found.layout is ImageLayout.CLASSES:
        whole = list_classes(root)
        _refuse_class_without_labels(config, root)
        return _cut(whole, found, root, config, part)
    by_split = _rows(root, found, config)
    classes = class_names(by_split["train"])
    test_split = next((split for split in ("test", "val") if split in by_split), None)
    what = f":{found.layout.value}"
    if config.image_column is not None and found.layout is not ImageLayout.MANIFEST:
        what += f":column {config.image_column}"  # whose names are those of another column's images
    if test_split is None:
        whole = listing(by_split["train"], classes, where=in_characters(str(root)), what=what)
        return _cut(whole, found, root, config, part)
    split = "train" if part is SourcePart.TRAIN else test_split
    where = f"{in_characters(str(root))}, split {split}"
    images = listing(by_split[split], classes, where=where, what=f"{what}:{split}")
    unread = "; split val is not read" if len(by_split) > 2 else ""
    return Listed(images, _words(found, root, f"split {test_split} is the test part{unread}"))


def _refuse_class_without_labels(config: DataConfig, folder: Path) -> None:
    """Unlabelled images in a class's folder would be labelled ones too, of a class that there is not."""
    if config.unlabelled is None or config.unlabelled.root is None:
        return
    unlabelled = expanded(config.unlabelled.root).resolve()
    inner = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if own := [path for path in inner if unlabelled.is_relative_to(path.resolve())]:
        raise DataError(
            f"`unlabelled.root` {in_characters(str(unlabelled))} is in {in_characters(str(own[0]))}, a "
            f"folder of labelled images that is a class; move it out of {in_characters(str(folder))}"
        )


def _rows(root: Path, found: Found, config: DataConfig) -> Mapping[str, Rows]:
    """By split; without one under `train`."""
    train, test = found.parts[SourcePart.TRAIN], found.parts.get(SourcePart.TEST)
    if found.layout is ImageLayout.MANIFEST and test is None:
        return read_manifest(train[0], config)
    parts = {"train": train} if test is None else {"train": train, "test": test}
    match found.layout:
        case ImageLayout.MANIFEST:
            return {split: read_manifest_of(split, files[0], config) for split, files in parts.items()}
        case ImageLayout.TARS:
            return {split: read_tars(root, files) for split, files in parts.items()}
        case ImageLayout.DATASETS:
            parts = saved_parts(root)
    return {split: read_tables(root, files, config) for split, files in parts.items()}


def _cut(whole: Listing, found: Found, root: Path, config: DataConfig, part: SourcePart) -> Listed:
    is_test_N = cut_off(whole.names, config.test_fraction)
    rows_N = np.flatnonzero(is_test_N if part is SourcePart.TEST else ~is_test_N)
    images = whole.subset(rows_N, f"{whole.what}:{part.value}:{config.test_fraction}")
    how = (
        f"no test part, so {int(is_test_N.sum()):,} of {len(whole):,} images are set apart to test, by the "
        "hash of each one's name (data.test_fraction)"
    )
    return Listed(images, _words(found, root, how))


def _words(found: Found, root: Path, test: str) -> str:
    own = found.parts[SourcePart.TRAIN][0].name if found.layout is ImageLayout.MANIFEST else ""
    named = f" ({in_characters(own)})" if own else ""
    return "; ".join(
        (f"layout {found.layout.value}{named} in {in_characters(str(root))}", test, *found.notes)
    )
