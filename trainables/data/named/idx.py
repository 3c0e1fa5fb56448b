"""Fashion-MNIST from its four IDX files, gzipped or not (format: yann.lecun.com/exdb/mnist)."""

from __future__ import annotations

import gzip
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.datasets import FashionMNIST

from trainables.config.data import DataConfig, SourcePart
from trainables.data.roots import downloaded, root_of
from trainables.data.splits import SourceImages
from trainables.errors import DataError
from trainables.foreign_files import foreign_file

_STEMS: Final[Mapping[SourcePart, str]] = MappingProxyType(
    {SourcePart.TRAIN: "train", SourcePart.TEST: "t10k"}
)
_UNSIGNED_BYTE: Final = 0x08
_TORCHVISION_FOLDER: Final = Path("FashionMNIST", "raw")
_PACKAGE: Final = (
    "run `apt-get install dataset-fashion-mnist` on every node and set "
    "`root: /usr/share/datasets/fashion-mnist`"
)


def read_fashion_mnist(config: DataConfig, part: SourcePart) -> SourceImages:
    """Grey 28x28 images of one part; only that part's two files are opened.

    The files lie in `root` itself, as in Debian's package, or in `root`/FashionMNIST/raw, as torchvision puts
    them. With `download`, torchvision fetches them when they are not there.

    Raises:
        DataError: a file is missing, damaged, or not what its name says.
    """
    root = root_of(config, remedy=f"set `download: true`, or {_PACKAGE}")
    names = (f"{_STEMS[part]}-images-idx3-ubyte", f"{_STEMS[part]}-labels-idx1-ubyte")
    paths = [_find(root, name) for name in names]
    if None in paths and config.download:
        downloaded(root, lambda: FashionMNIST(root, download=True), by_hand=_PACKAGE)
        paths = [_find(root, name) for name in names]
    found = [path for path in paths if path is not None]
    if len(found) < len(names):
        lacking = ", ".join(name for name, path in zip(names, paths, strict=True) if path is None)
        raise DataError(
            f"no {lacking} (or the same with .gz) in {root} or {root / _TORCHVISION_FOLDER}; "
            f"set `download: true`, or {_PACKAGE}"
        )
    images = read_idx(found[0], dimensions=3)
    labels = read_idx(found[1], dimensions=1)
    if len(images) != len(labels):
        raise DataError(
            f"{found[0]} holds {len(images)} images and {found[1]} holds {len(labels)} labels; "
            "fetch both files again from one source"
        )
    return SourceImages(
        images=torch.from_numpy(images).unsqueeze(1),
        labels=torch.from_numpy(labels.astype(np.int64)),
        classes=tuple(FashionMNIST.classes),
    )


def read_idx(path: Path, *, dimensions: int) -> NDArray[np.uint8]:
    """The array of bytes in an IDX file: 0, 0, type, rank, then big-endian sizes, then the values.

    Raises:
        DataError: the file is damaged, cut short, or does not hold bytes in so many dimensions.
    """
    with foreign_file(lambda why: DataError(f"cannot read {path}: {why}; fetch the file again")):
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes([0, 0, _UNSIGNED_BYTE, dimensions]):
        raise DataError(
            f"{path} is not an IDX file of unsigned bytes in {dimensions} dimensions: it begins with "
            f"{content[:4].hex(' ') or 'nothing'}; fetch the file again"
        )
    sizes = [int(size) for size in np.frombuffer(content[4:header], dtype=">u4")]
    expected = math.prod(sizes)
    if len(content) - header != expected:
        raise DataError(
            f"{path} says {' x '.join(map(str, sizes))} = {expected} bytes and holds "
            f"{len(content) - header}; fetch the file again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(sizes).copy()


def _find(root: Path, name: str) -> Path | None:
    candidates = [
        folder / file for folder in (root, root / _TORCHVISION_FOLDER) for file in (name, f"{name}.gz")
    ]
    return next((path for path in candidates if path.is_file()), None)
