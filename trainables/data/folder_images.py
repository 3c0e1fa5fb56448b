"""The images of a folder as they are needed: decoded in threads, batch by batch, and not kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.data.folder_index import FolderIndex
from trainables.data.folder_listing import MAX_THREADS
from trainables.data.pictures import Box, Encoded, read_cut, read_square, unreadable
from trainables.data.resizing import Resize
from trainables.foreign_files import Unreadable, foreign_file

CHANNELS: Final = 3
DIGEST_FORMAT: Final = 1
"""Goes up when the same files give other pixels."""

# N = images, B = images of a batch, S = side in pixels, C = channels


class FolderImages:
    """uint8 NxCxSxS images that lie in files; indexing them decodes.

    Every image is brought to S pixels on its shorter side, or as `resize` says, and cut to its centre, as
    when a folder is loaded whole; only JPEGs at least four times as large as that are decoded at a part of
    their size.
    """

    def __init__(
        self, index: FolderIndex, rows_N: NDArray[np.int64], side: int, resize: Resize = None
    ) -> None:
        """The images of these rows of an index, none of which has a fault."""
        self._index = index
        self._rows_N = rows_N
        self._side = side
        self._resize = resize

    def __len__(self) -> int:
        return len(self._rows_N)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Images, channels, height, width."""
        return len(self), CHANNELS, self._side, self._side

    @property
    def nbytes(self) -> int:
        """What they would hold if they were in memory."""
        return int(np.prod(self.shape, dtype=np.int64))

    def sides(self, rows_B: NDArray[np.int64]) -> NDArray[np.int32]:
        """Bx2: height and width in pixels of these images in their files."""
        return self._index.sides_N2[self._rows_N[rows_B]]

    def subset(self, rows: NDArray[np.int64]) -> FolderImages:
        """Some of the images, in this order; nothing is decoded."""
        return FolderImages(self._index, self._rows_N[rows], self._side, self._resize)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """uint8 BxCxSxS on the CPU: the images of int64 rows, or of a slice.

        Raises:
            DataError: images cannot be decoded; their files are named.
        """
        chosen_B = self._rows_N[rows if isinstance(rows, slice) else rows.cpu().numpy()]
        return self._decoded(
            chosen_B,
            lambda place: read_square(
                self._image(chosen_B[place]), self._side, draft=True, resize=self._resize
            ),
        )

    def undrafted(self, rows: slice) -> Tensor:
        """uint8 BxCxSxS on the CPU: the pixels that these images have when a folder is loaded whole.

        Raises:
            DataError: images cannot be decoded; their files are named.
        """
        chosen_B = self._rows_N[rows]
        return self._decoded(
            chosen_B, lambda place: read_square(self._image(chosen_B[place]), self._side, resize=self._resize)
        )

    def cut(self, rows_B: Tensor, box_B4: Tensor) -> Tensor:
        """uint8 BxCxSxS on the CPU: a box of each image, in pixels of its file, brought to S x S.

        Boxes are top, left, height, width.

        Raises:
            DataError: images cannot be decoded, or have another size than the folder's index says.
        """
        chosen_B = self._rows_N[rows_B.cpu().numpy()]
        boxes: Sequence[Box] = [tuple(box) for box in box_B4.tolist()]

        def read(place: int) -> NDArray[np.uint8]:
            height, width = self._index.sides_N2[chosen_B[place]].tolist()
            return read_cut(self._image(chosen_B[place]), boxes[place], self._side, size=(height, width))

        return self._decoded(chosen_B, read)

    def digest(self, labels_N: Tensor, ids_N: Tensor) -> str:
        """Hex sha256 of side and `resize`, and of path, size, content, label, id and turn of each file."""
        listing = self._index.listing
        rule = [] if self._resize is None else [self._resize]
        digest = hashlib.sha256(json.dumps(["image_folder", DIGEST_FORMAT, *self.shape, *rule]).encode())
        for row in self._rows_N.tolist():
            digest.update(listing.names.encoded(row))
        for array in (listing.bytes_N[self._rows_N], self._index.sha256_NB[self._rows_N]):
            digest.update(np.ascontiguousarray(array).data)
        for tensor in (labels_N, ids_N):
            digest.update(np.ascontiguousarray(tensor.numpy()).data)
        turned_N = self._index.orientation_N[self._rows_N]
        if (turned_N != 1).any():  # folders of upright images keep the digest of earlier versions
            digest.update(turned_N.data)
        return digest.hexdigest()

    def file_hashes(self) -> NDArray[np.uint64]:
        """N: the first 64 bits of the sha256 of each image's file."""
        return self._index.content_hashes()[self._rows_N]

    def path(self, row: int) -> Path:
        """The file of an image."""
        return self._index.listing.path(int(self._rows_N[row]))

    def _image(self, row: np.int64) -> Encoded:
        return self._index.listing.image(int(row))

    def _decoded(self, rows_B: NDArray[np.int64], read: Callable[[int], NDArray[np.uint8]]) -> Tensor:
        """What `read` gives for each place in the batch, side by side."""
        images = np.empty((len(rows_B), *self.shape[1:]), dtype=np.uint8)

        def decode(place: int) -> str | None:
            try:
                with foreign_file(Unreadable):
                    images[place] = read(place)
            except Unreadable as error:
                return f"{self._index.listing.told(int(rows_B[place]))} ({error})"
            return None

        failures = [failure for failure in self._pool.map(decode, range(len(rows_B))) if failure]
        if failures:
            raise unreadable(failures, len(rows_B))
        return torch.from_numpy(images)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        # As many as this process may compute with, since a node may hold several that decode. Whoever has a
        # GPU computes on that, and the cores beside it have little else to do.
        n_threads = len(os.sched_getaffinity(0)) if torch.cuda.is_available() else torch.get_num_threads()
        n_threads = min(MAX_THREADS, n_threads)
        return ThreadPoolExecutor(n_threads, thread_name_prefix="decode")
