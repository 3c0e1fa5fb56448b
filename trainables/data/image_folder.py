"""A user's own pictures: root/train/<class>/<image> and root/test/<class>/<image>."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from trainables.config.data import DataConfig
from trainables.data.records import SourceImages, SourcePart
from trainables.data.resizing import eight_bit, squared
from trainables.data.roots import root_of
from trainables.errors import DataError

SUFFIXES: Final = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_MAX_THREADS: Final = 16
_NAMED: Final = 5
_LAYOUT: Final = "expected train/<class>/<image> and test/<class>/<image> below `root`"


def read_image_folder(config: DataConfig, part: SourcePart) -> SourceImages:
    """RGB images of one part, `image_size` on each side.

    Classes are the sorted names of the folders in root/train. Images are in the order of their sorted paths
    relative to the part's folder (compared as text with /), so a sample's id changes when files are added
    before it. Hidden files and other suffixes than `SUFFIXES` are passed over.

    Raises:
        DataError: a folder is missing or empty, test has other classes than train, or images cannot be read.
    """
    if config.image_size is None:
        raise DataError("image_folder needs `image_size`, the side in pixels to resize to")
    root = root_of(config, remedy=_LAYOUT)
    classes = _class_names(root / SourcePart.TRAIN.value)
    folder = root / part.value
    if part is SourcePart.TEST:
        _refuse_other_classes(folder, classes)
    paths = _image_paths(folder, classes)
    label_of = {name: label for label, name in enumerate(classes)}
    labels = [label_of[path.relative_to(folder).parts[0]] for path in paths]
    return SourceImages(
        images=torch.from_numpy(_decoded(paths, config.image_size)),
        labels=torch.tensor(labels, dtype=torch.int64),
        classes=classes,
    )


def _class_names(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; {_LAYOUT}")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise DataError(f"{folder} holds no folder, and so no class; {_LAYOUT}")
    return tuple(names)


def _refuse_other_classes(folder: Path, classes: Sequence[str]) -> None:
    found = set(_class_names(folder))
    if found != set(classes):
        lacking = sorted(set(classes) - found)
        extra = sorted(found - set(classes))
        raise DataError(
            f"{folder} has other classes than train: missing {lacking[:_NAMED]} ({len(lacking)}), "
            f"unknown {extra[:_NAMED]} ({len(extra)}); both need the same class folders"
        )


def _image_paths(folder: Path, classes: Sequence[str]) -> list[Path]:
    paths = []
    for name in classes:
        of_class = [
            path
            for path in (folder / name).rglob("*")
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
        ]
        if not of_class:
            raise DataError(
                f"{folder / name} holds no image ({', '.join(sorted(SUFFIXES))}); "
                "add some, or remove the class"
            )
        paths += of_class
    return sorted(paths, key=lambda path: path.relative_to(folder).as_posix())


def _decoded(paths: Sequence[Path], side: int) -> NDArray[np.uint8]:
    """uint8 NxCxHxW; decoded in threads, since Pillow lets go of the interpreter while it works."""
    images = np.empty((len(paths), 3, side, side), dtype=np.uint8)

    def decode(row: int) -> str | None:
        try:
            images[row] = _read_rgb(paths[row], side)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            return f"{paths[row]} ({error})"
        return None

    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        failures = [failure for failure in pool.map(decode, range(len(paths))) if failure]
    if failures:
        more = f" and {len(failures) - _NAMED} more" if len(failures) > _NAMED else ""
        raise DataError(
            f"{len(failures)} of {len(paths)} images cannot be read: {'; '.join(failures[:_NAMED])}{more}; "
            "repair or remove them"
        )
    return images


def _read_rgb(path: Path, side: int) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        pixels = np.asarray(squared(eight_bit(image, "RGB"), side))
    return pixels.transpose(2, 0, 1)
