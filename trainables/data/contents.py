"""Which images are the same, by what is in them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:  # most data sets are no image folders
    from trainables.data.folder_images import FolderImages

_BYTES: Final = 8
_CHUNK: Final = 256

# N = images, H, W = height and width in pixels


def content_hashes(images: Tensor | FolderImages, *, decoded: bool = False) -> NDArray[np.uint64]:
    """N: a hash of what is in each image, the same for two images of the same content.

    Of images in memory the pixels count, with their shape. Of images in files the bytes of the file count,
    which are known already: two files can then hold the same picture and differ. With `decoded` their pixels
    count too, so that they can be compared with images in memory; that decodes each once. 64 bits: among
    10^6 images compared with 10^6 others, a chance match comes up once in 10^7 data sets.

    Raises:
        DataError: images cannot be decoded.
    """
    if isinstance(images, Tensor):
        return _of_pixels([images])
    if decoded:
        chunks = (slice(first, first + _CHUNK) for first in range(0, len(images), _CHUNK))
        # A JPEG that is decoded at a part of its size has other pixels than the same one in memory.
        return _of_pixels(map(images.undrafted, chunks))
    return images.file_hashes()


def among(hashes_N: NDArray[np.uint64], others_M: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """N: whether each is among the others; sorted, since NumPy's table of a range overflows at 64 bits."""
    return np.isin(hashes_N, others_M, kind="sort")


def _of_pixels(batches: Iterable[Tensor]) -> NDArray[np.uint64]:
    hashes: list[bytes] = []
    for images_NCHW in batches:
        shape = f"{tuple(images_NCHW.shape[1:])}".encode()
        for image in images_NCHW.contiguous().numpy():
            hashes.append(hashlib.blake2b(image.data, digest_size=_BYTES, salt=b"pixels", key=shape).digest())
    return np.frombuffer(b"".join(hashes), dtype="<u8").astype(np.uint64)
