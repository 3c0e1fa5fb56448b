"""A user's own data set: a factory that returns a torch Dataset of (image, label)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from trainables.config.data import DataConfig, SourcePart
from trainables.data.resizing import eight_bit
from trainables.data.splits import SourceImages
from trainables.errors import DataError, StillhouseError
from trainables.factories import call_factory, in_one_line

T = TypeVar("T")

_ALLOWED: Final = (
    "allowed: a Pillow image, a uint8 tensor CxHxW or HxW, a float tensor CxHxW in [0, 1], "
    "a numpy array HxWxC or HxW (uint8, or float in [0, 1])"
)
_MAX_CHANNELS: Final = 4


def read_factory(config: DataConfig, part: SourcePart) -> SourceImages:
    """The samples of the data set that `factory(split="train" | "test", **arguments)` returns, in its order.

    Its optional attribute `classes` names the classes.

    Raises:
        ConfigError: the factory cannot be found or called so.
        DataError: it does not return a data set of equal-sized images and integer labels; the index is named.
    """
    if config.factory is None:
        raise DataError("data needs a `name` or a `factory`")
    dataset = call_factory(config.factory, {"split": part.value}, config.arguments)
    where = f"data factory {config.factory!r}, split {part.value}"
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise DataError(
            f"{where}: got a {type(dataset).__name__}; return a torch Dataset with __len__ and __getitem__"
        )
    images, labels = _collected(dataset, where)
    classes = getattr(dataset, "classes", None)
    return SourceImages(
        images=images,
        labels=torch.tensor(labels, dtype=torch.int64),
        classes=None if classes is None else tuple(str(name) for name in classes),
    )


def _collected(dataset: Any, where: str) -> tuple[Tensor, list[int]]:
    n_samples = _of_user(lambda: len(dataset), where)
    if n_samples == 0:
        raise DataError(f"{where}: the data set is empty; check the factory's `arguments`")
    labels: list[int] = []
    images: NDArray[np.uint8] | None = None
    for index, (image, label) in enumerate(_samples(dataset, n_samples, where)):
        pixels = _pixels(image, f"{where}, index {index}")
        if images is None:
            images = np.empty((n_samples, *pixels.shape), dtype=np.uint8)
        if pixels.shape != images.shape[1:]:
            raise DataError(
                f"{where}, index {index}: the image is {_shape(pixels)}, the first one is "
                f"{_shape(images[0])} (channels x height x width); resize them to one size in the data set"
            )
        images[index] = pixels
        labels.append(_label(label, f"{where}, index {index}"))
    return torch.from_numpy(images), labels


def _samples(dataset: Any, n_samples: int, where: str) -> Iterator[tuple[Any, Any]]:
    for index in range(n_samples):
        sample = _of_user(partial(dataset.__getitem__, index), f"{where}, index {index}")
        if not (isinstance(sample, tuple | list) and len(sample) == 2):
            raise DataError(
                f"{where}, index {index}: got a {type(sample).__name__}; a sample is a pair (image, label)"
            )
        yield sample[0], sample[1]


def _of_user(call: Callable[[], T], where: str) -> T:
    """What a user's data set answers."""
    try:
        return call()
    except StillhouseError:
        raise
    except Exception as error:  # a user's data set may raise anything
        raise DataError(f"{where}: the data set raised {in_one_line(error)}") from error


def _pixels(image: object, where: str) -> NDArray[np.uint8]:
    """uint8 CxHxW."""
    match image:
        case Image.Image():
            array = np.asarray(_eight_bit(image, where))
            channels_last = True
        case Tensor():
            values = image.detach().cpu()
            # numpy knows no bfloat16
            array = (values.double() if values.is_floating_point() else values).numpy()
            channels_last = False
        case np.ndarray():
            array = image
            channels_last = True
        case _:
            raise DataError(f"{where}: the image is a {type(image).__name__}; {_ALLOWED}")
    shape = array.shape
    if array.ndim == 2:
        array = array[None]
    elif array.ndim == 3 and channels_last:
        array = array.transpose(2, 0, 1)
    if array.ndim != 3 or not 1 <= array.shape[0] <= _MAX_CHANNELS or array.size == 0:
        raise DataError(f"{where}: the image has the shape {shape}; {_ALLOWED}")
    return _bytes(array, where)


def _eight_bit(image: Image.Image, where: str) -> Image.Image:
    try:
        return eight_bit(image, "L" if image.mode in {"1", "L"} else "RGB")
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error


def _bytes(array: NDArray[Any], where: str) -> NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise DataError(f"{where}: the image is of type {array.dtype}; {_ALLOWED}")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):  # written so that NaN is refused too
        raise DataError(
            f"{where}: float pixels from {low:.4g} to {high:.4g}, not in [0, 1]; leave normalising to "
            "Stillhouse (`mean` and `std`)"
        )
    return np.rint(array.astype(np.float64) * 255).astype(np.uint8)


def _label(label: object, where: str) -> int:
    match label:
        case Tensor() if label.numel() == 1:
            label = label.item()
        case np.ndarray() | np.generic() if label.size == 1:
            label = label.item()
    if isinstance(label, bool) or not isinstance(label, int):
        raise DataError(
            f"{where}: the label is {label!r} ({type(label).__name__}); labels are integers from 0 to the "
            "number of classes less one"
        )
    return label


def _shape(array: NDArray[Any]) -> str:
    return "x".join(map(str, array.shape))
