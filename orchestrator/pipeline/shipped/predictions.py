"""What an exported student says of image files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.errors import ConfigError
from trainables.export.opening import OpenedStudent
from trainables.export.picture_reading import PictureReader, picture_reader
from trainables.foreign_files import Unreadable, foreign_file
from trainables.image_files import is_image_name

TOGETHER: Final = 32
"""Images that are read and answered at once."""

# B = images, C = classes, K = classes that are told


@dataclass(frozen=True)
class ImageAnswer:
    """What a student says of one image."""

    image: str
    top: tuple[tuple[str, float], ...]
    """Classes and their probabilities, the most probable first."""
    was_scaled: bool
    """Whether it had another size than the images that the student was trained on, all of one size."""

    def plain(self) -> dict[str, Any]:
        """The same for programs."""
        name, probability = self.top[0]
        ranked = [{"class": each, "probability": share} for each, share in self.top]
        return {"image": self.image, "class": name, "probability": probability, "top": ranked}


@dataclass(frozen=True)
class UnreadImage:
    """An image file that cannot be read, and why."""

    image: str
    why: str

    def plain(self) -> dict[str, str]:
        """The same for programs."""
        return {"image": self.image, "why": self.why}


@dataclass(frozen=True)
class ReadImages:
    """Some images as a student takes them."""

    files: list[Path]
    pixels: list[NDArray[np.uint8]]
    """CxHxW each, prepared; or HxWxC of any size, for a file that prepares images itself."""
    scaled: list[bool]
    unread: list[UnreadImage]


def image_files(places: Sequence[Path]) -> list[Path]:
    """These files, and all images of these folders at any depth, in the order of their paths.

    Raises:
        ConfigError: a place is not there, or a folder has no image.
    """
    missing = [str(place) for place in places if not place.exists()]
    if missing:
        raise ConfigError(f"there is no {', '.join(missing[:5])}; name image files, or folders of them")
    found: list[Path] = []
    for place in places:
        inside = list(_images_below(place)) if place.is_dir() else [place]
        if not inside:
            raise ConfigError(f"{place} holds no image, at any depth; hidden files are passed over")
        found += inside
    return found


def predicted(
    student: OpenedStudent, files: Sequence[Path], *, top: int, tell: Callable[[int], None]
) -> tuple[list[ImageAnswer], list[UnreadImage]]:
    """Of each image the most probable classes, and the images that cannot be read.

    `tell` is called with the number of images that are done.

    Raises:
        CheckpointError: the student cannot take images from files.
    """
    answers: list[ImageAnswer] = []
    unread: list[UnreadImage] = []
    for done, read in read_in_batches(student, files):
        unread += read.unread
        if read.files:
            probabilities_BC = answered(student, read).softmax(dim=-1)
            answers += _answers(student, read, probabilities_BC, top)
        tell(done)
    return answers, unread


def answered(student: OpenedStudent, read: ReadImages) -> Tensor:
    """float32 logits BxC of images that were read for this student."""
    if student.takes_pictures:
        return torch.cat([student.logits_of_picture(picture) for picture in read.pixels])
    return student.logits(torch.from_numpy(np.stack(read.pixels)))


def read_in_batches(student: OpenedStudent, files: Sequence[Path]) -> Iterator[tuple[int, ReadImages]]:
    """How many files are read by then, and some images more, as the student takes them.

    Raises:
        CheckpointError: the student cannot take images from files.
    """
    reader = picture_reader(student.document)
    with ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0)))) as pool:
        for first in range(0, len(files), TOGETHER):
            batch = files[first : first + TOGETHER]
            read = ReadImages([], [], [], [])
            tried = pool.map(lambda file: _read(reader, file, whole=student.takes_pictures), batch)
            for file, found in zip(batch, tried, strict=True):
                if isinstance(found, UnreadImage):
                    read.unread.append(found)
                else:
                    read.files.append(file)
                    read.pixels.append(found[0])
                    read.scaled.append(found[1])
            yield first + len(batch), read


def _read(reader: PictureReader, file: Path, *, whole: bool) -> tuple[NDArray[np.uint8], bool] | UnreadImage:
    try:
        with foreign_file(Unreadable):
            return (reader.whole(file), False) if whole else reader.prepared(file)
    except Unreadable as error:
        return UnreadImage(str(file), str(error))


def _answers(
    student: OpenedStudent, read: ReadImages, probabilities_BC: Tensor, top: int
) -> list[ImageAnswer]:
    shares_BK, places_BK = probabilities_BC.topk(min(top, len(student.classes)), dim=-1)
    ranked = zip(read.files, shares_BK.tolist(), places_BK.tolist(), read.scaled, strict=True)
    return [
        ImageAnswer(
            image=str(file),
            top=tuple((student.classes[place], share) for place, share in zip(places, shares, strict=True)),
            was_scaled=was_scaled,
        )
        for file, shares, places, was_scaled in ranked
    ]


def _images_below(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(
        folder
    ):  # links to folders are not followed: they may lead in a circle
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(names) if is_image_name(name))
