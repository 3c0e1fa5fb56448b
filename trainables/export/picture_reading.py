"""From an image file to what a student takes, as its training images were prepared: its file says how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trainables.data.pictures import Encoded, Mode, read_square, read_whole, upright_size
from trainables.data.resizing import Resize
from trainables.errors import CheckpointError
from trainables.export.stated import StudentDocument
from trainables.foreign_files import Unreadable

_MODES: Final[dict[int, Mode]] = {1: "L", 3: "RGB"}

# C = channels, H, W = height and width


@dataclass(frozen=True)
class PictureReader:
    """Reads image files for one student."""

    mode: Mode
    height: int
    width: int
    resize: Resize
    """As in the data section of an experiment."""
    jpeg_in_part: bool
    wants_own_size: bool
    """Images of its data set were of its input's size, so it was trained on none that was resized."""

    def prepared(self, place: Encoded) -> tuple[NDArray[np.uint8], bool]:
        """uint8 CxHxW, and whether an image of another size than training knew was brought to it.

        Raises:
            Unreadable: the student takes images that are not square, and this one has another size.
            Exception: whatever a damaged image makes Pillow raise; read within `foreign_file`.
        """
        if not self.wants_own_size:
            return self._square(place), False
        size = upright_size(place)
        if size == (self.width, self.height):
            return read_whole(place, mode=self.mode), False
        if self.width != self.height:
            raise Unreadable(
                f"it is {size[0]}x{size[1]} pixels, and the student takes {self.width}x{self.height} alone; "
                "resize it as the data set's own images were"
            )
        return self._square(place), True

    def whole(self, place: Encoded) -> NDArray[np.uint8]:
        """uint8 HxWxC of the image's own size, for a file that prepares images itself."""
        return np.ascontiguousarray(read_whole(place, mode=self.mode).transpose(1, 2, 0))

    def _square(self, place: Encoded) -> NDArray[np.uint8]:
        return read_square(place, self.width, draft=self.jpeg_in_part, resize=self.resize, mode=self.mode)


def picture_reader(document: StudentDocument) -> PictureReader:
    """How image files are read for a student.

    Raises:
        CheckpointError: image files do not have its number of channels.
    """
    channels, height, width = document.input_shape
    mode = _MODES.get(channels)
    if mode is None:
        raise CheckpointError(
            f"the student takes images of {channels} channels, which image files do not have: only those of "
            "1 (grey) and 3 (RGB) can be read from files; call the exported file from your own program"
        )
    preparation = document.preparation
    resizing = None if preparation is None else preparation.resizing
    resize: Resize = None
    if resizing is not None:
        resize = "stretch" if resizing.shorter_side is None else resizing.shorter_side
    return PictureReader(
        mode=mode,
        height=height,
        width=width,
        resize=resize,
        jpeg_in_part=preparation is not None and preparation.jpeg_in_part,
        wants_own_size=resizing is None,
    )
