"""A user's own data set: a factory that returns a torch Dataset of (image, label)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from trainables.config.base import Scalar
from trainables.config.data import DataConfig, SourcePart, UnlabelledConfig
from trainables.data.resizing import eight_bit, resized
from trainables.data.splits import FIRST_UNLABELLED_ID, NO_LABEL, ImageSplit, SourceImages
from trainables.errors import DataError, StillhouseError
from trainables.factories import call_factory, in_one_line
from trainables.seeds import first_by_hash, salt_of

T = TypeVar("T")
Samples = Callable[[Any, Sequence[int], str], Iterator[tuple[Any, Any]]]

_ALLOWED: Final = (
    "allowed: a Pillow image, a uint8 tensor CxHxW or HxW, a float tensor CxHxW in [0, 1], "
    "a numpy array HxWxC or HxW (uint8, or float in [0, 1])"
)
_MAX_CHANNELS: Final = 4
_COMPARED: Final = 256
_SALT: Final = salt_of("data/same_samples")


def read_factory(config: DataConfig, part: SourcePart) -> SourceImages:
    """The samples of the data set that `factory(split="train" | "test", **arguments)` returns, in its order.

    Its optional attribute `classes` names the classes.

    Raises:
        ConfigError: the factory cannot be found or called so.
        DataError: it does not return a data set of equal-sized images and integer labels; the index is named.
    """
    dataset, where = _made(config, part)
    images, labels = _collected(dataset, _all(dataset, where), where, _samples)
    classes = getattr(dataset, "classes", None)
    return SourceImages(
        images=images,
        labels=torch.tensor(labels, dtype=torch.int64),
        classes=None if classes is None else tuple(str(name) for name in classes),
    )


def read_images(factory: str, arguments: Mapping[str, Scalar]) -> Tensor:
    """uint8 NxCxHxW: the images of the data set that `factory(**arguments)` returns, in its order.

    Its samples are images, or pairs, whose first member counts alone.

    Raises:
        ConfigError: the factory cannot be found or called so.
        DataError: it does not return a data set of equal-sized images; the index is named.
    """
    dataset, where = _made_unlabelled(factory, arguments)
    return _collected(dataset, _all(dataset, where), where, _images_alone)[0]


def require_same_samples(config: DataConfig, part: SourcePart, found: ImageSplit) -> None:
    """Call the factory once more, and compare some of its samples with those that it gave before.

    The teacher's answers are kept by index, and each process calls the factory itself: a data set that is
    drawn anew each time would only be noticed when the teacher is trained, as a cache of other data.

    Raises:
        ConfigError: the factory cannot be called again.
        DataError: it gives other samples now.
    """
    _require_same(config, _made(config, part), found, _samples)


def require_same_images(config: DataConfig, unlabelled: UnlabelledConfig, found: ImageSplit) -> None:
    """The same for the factory of unlabelled images, some of which were left out.

    Raises:
        ConfigError, DataError: as for `require_same_samples`.
    """
    again = _made_unlabelled(str(unlabelled.factory), unlabelled.arguments)
    _require_same(config, again, found, _images_alone, first_id=FIRST_UNLABELLED_ID)


def _require_same(
    config: DataConfig, again: tuple[Any, str], found: ImageSplit, samples: Samples, *, first_id: int = 0
) -> None:
    dataset, where = again
    ids_N = found.ids.numpy()
    chosen = first_by_hash(ids_N, _COMPARED, salt=_SALT)
    rows = torch.from_numpy(np.searchsorted(ids_N, chosen))
    count, last = _of_user(lambda: len(dataset), where), int(ids_N[-1]) - first_id
    if count <= last:
        raise _other_samples(where, f"{count} samples, and before at least {last + 1}")
    images, labels = _collected(dataset, (chosen - first_id).tolist(), where, samples)
    images = images if config.image_size is None else resized(images, config.image_size, config.resize)
    before = found.images[rows]
    if images.shape != before.shape:
        raise _other_samples(where, f"images of the shape {_shape(images[0])}, before {_shape(before[0])}")
    differs = (images != before).flatten(1).any(dim=1) | (torch.tensor(labels) != found.labels[rows])
    if differs.any():
        first = int(chosen[int(differs.int().argmax())]) - first_id
        raise _other_samples(where, f"{int(differs.sum())} of {len(rows)} samples differ, such as {first}")


def _other_samples(where: str, how: str) -> DataError:
    return DataError(
        f"{where}: called twice, it gave other samples the second time ({how}); the teacher's answers are "
        "kept by index, so a data set must be the same each time: draw what is random with a fixed seed "
        "(torch.Generator().manual_seed(0)), and leave augmentation to `views`"
    )


def _made(config: DataConfig, part: SourcePart) -> tuple[Any, str]:
    """What the factory returns, and how messages name it."""
    if config.factory is None:
        raise DataError("data needs a `name` or a `factory`")
    dataset = call_factory(config.factory, {"split": part.value}, config.arguments)
    where = f"data factory {config.factory!r}, split {part.value}"
    return _required(dataset, where), where


def _made_unlabelled(factory: str, arguments: Mapping[str, Scalar]) -> tuple[Any, str]:
    where = f"factory {factory!r} of unlabelled images"
    return _required(call_factory(factory, {}, arguments), where), where


def _required(dataset: Any, where: str) -> Any:
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise DataError(
            f"{where}: got a {type(dataset).__name__}; return a torch Dataset with __len__ and __getitem__"
        )
    return dataset


def _all(dataset: Any, where: str) -> range:
    n_samples = _of_user(lambda: len(dataset), where)
    if n_samples == 0:
        raise DataError(f"{where}: the data set is empty; check the factory's `arguments`")
    return range(n_samples)


def _collected(
    dataset: Any, indices: Sequence[int], where: str, samples: Samples
) -> tuple[Tensor, list[int]]:
    labels: list[int] = []
    images: NDArray[np.uint8] | None = None
    for place, (image, label) in enumerate(samples(dataset, indices, where)):
        index = indices[place]
        pixels = _pixels(image, f"{where}, index {index}")
        if images is None:
            images = np.empty((len(indices), *pixels.shape), dtype=np.uint8)
        if pixels.shape != images.shape[1:]:
            raise DataError(
                f"{where}, index {index}: the image is {_shape(pixels)}, the first one is "
                f"{_shape(images[0])} (channels x height x width); resize them to one size in the data set"
            )
        images[place] = pixels
        labels.append(_label(label, f"{where}, index {index}"))
    return torch.from_numpy(images), labels


def _samples(dataset: Any, indices: Sequence[int], where: str) -> Iterator[tuple[Any, Any]]:
    for index in indices:
        sample = _of_user(partial(dataset.__getitem__, index), f"{where}, index {index}")
        if not (isinstance(sample, tuple | list) and len(sample) == 2):
            raise DataError(
                f"{where}, index {index}: got a {type(sample).__name__}; a sample is a pair (image, label)"
            )
        yield sample[0], sample[1]


def _images_alone(dataset: Any, indices: Sequence[int], where: str) -> Iterator[tuple[Any, Any]]:
    for index in indices:
        sample = _of_user(partial(dataset.__getitem__, index), f"{where}, index {index}")
        yield (sample[0] if isinstance(sample, tuple | list) and sample else sample), NO_LABEL


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


def _shape(array: NDArray[Any] | Tensor) -> str:
    return "x".join(map(str, array.shape))
