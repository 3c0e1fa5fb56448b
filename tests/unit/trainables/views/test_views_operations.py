"""Each batched operation against torchvision, image by image, with the same parameters."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as reference
from torch import Tensor

from trainables.config.views import RandAugmentStep, Step, TrivialAugmentStep
from trainables.views import colour, geometry
from trainables.views.draw import draw
from trainables.views.operations import Operation, OperationsParams
from trainables.views.render import render

SIZES = [(32, 32), (28, 28), (20, 44), (7, 12)]
Kernel = Callable[[Tensor, Tensor], Tensor]
One = Callable[[Tensor, float], Tensor]


def images(count: int, channels: int, size: tuple[int, int]) -> Tensor:
    """Noise, then some that break formulas: constant, two values, a ramp, narrow noise."""
    generator = torch.Generator().manual_seed(count + 10 * channels + size[1])
    batch = torch.randint(0, 256, (count, channels, *size), generator=generator, dtype=torch.uint8)
    batch[1] = 0
    batch[2] = 255
    batch[3] = 77
    batch[4] = (batch[4] > 128) * 200
    batch[5] = torch.arange(size[1], dtype=torch.uint8)
    batch[6] = 100 + batch[6] % 8
    batch[7, 0] = 9
    return batch


def spread(low: float, high: float, count: int) -> Tensor:
    """Both ends, and places without pattern between them."""
    inner = torch.rand(count - 2, generator=torch.Generator().manual_seed(5)) * (high - low) + low
    return torch.cat([torch.tensor([low, high]), inner])


def one_by_one(batch: Tensor, values: Tensor, operation: One) -> Tensor:
    return torch.stack([operation(image, value) for image, value in zip(batch, values.tolist(), strict=True)])


def levels_apart(a: Tensor, b: Tensor) -> int:
    return int((a.int() - b.int()).abs().max())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (colour.brightness, reference.adjust_brightness),
        (colour.saturation, reference.adjust_saturation),
        (colour.contrast, reference.adjust_contrast),
        (colour.sharpness, reference.adjust_sharpness),
    ],
    ids=["brightness", "saturation", "contrast", "sharpness"],
)
@pytest.mark.parametrize(("low", "high"), [(0.05, 0.95), (0.0, 1.0), (1.0, 1.99)])
def test_blends_are_torchvisions_to_one_level(
    ours: Kernel, theirs: One, low: float, high: float, channels: int, size: tuple[int, int]
) -> None:
    batch, factors = images(24, channels, size), spread(low, high, 24)
    expected = one_by_one(batch, factors, theirs)
    result = ours(batch, factors)
    assert result.dtype == torch.uint8
    assert levels_apart(result, expected) <= 1
    assert (result != expected).float().mean() < 0.01


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (9, 2), (3, 3)])
def test_sharpness_leaves_the_frame_and_tiny_images(size: tuple[int, int]) -> None:
    batch, factors = images(10, 3, size), spread(0.05, 0.95, 10)
    assert (
        levels_apart(colour.sharpness(batch, factors), one_by_one(batch, factors, reference.adjust_sharpness))
        <= 1
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_posterize_is_torchvisions(channels: int, size: tuple[int, int]) -> None:
    batch = images(18, channels, size)
    bits = torch.arange(18.0) % 9
    expected = one_by_one(batch, bits, lambda image, n: reference.posterize(image, int(n)))
    assert torch.equal(colour.posterize(batch, bits), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_solarize_is_torchvisions(channels: int) -> None:
    batch = images(16, channels, (20, 44))
    thresholds = torch.cat([torch.tensor([0.0, 0.5, 1.0, 77.0, 77.001, 254.5, 255.0]), spread(0, 255, 9)])
    assert torch.equal(colour.solarize(batch, thresholds), one_by_one(batch, thresholds, reference.solarize))


def test_solarize_above_the_largest_level_changes_nothing() -> None:
    batch = images(8, 3, (7, 12))
    assert torch.equal(colour.solarize(batch, torch.full((8,), 255.5)), batch)


@pytest.mark.parametrize("size", [*SIZES, (64, 64)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(colour.autocontrast, reference.autocontrast), (colour.equalize, reference.equalize)],
    ids=["autocontrast", "equalize"],
)
def test_histogram_operations_are_torchvisions(
    ours: Callable[[Tensor], Tensor],
    theirs: Callable[[Tensor], Tensor],
    channels: int,
    size: tuple[int, int],
) -> None:
    batch = images(24, channels, size)
    assert torch.equal(ours(batch), torch.stack([theirs(image) for image in batch]))


def test_grey_images_have_no_saturation_to_change() -> None:
    batch = images(8, 1, (28, 28))
    assert torch.equal(colour.saturation(batch, spread(0.05, 0.95, 8)), batch)


def rotated(image: Tensor, degrees: float) -> Tensor:
    turned: Tensor = reference.rotate(image, degrees, fill=[0.0])
    return turned


def affine(image: Tensor, *, shift: tuple[int, int] = (0, 0), shear: tuple[float, float] = (0, 0)) -> Tensor:
    """Sheared about the top left corner, as Pillow does."""
    moved: Tensor = reference.affine(image, 0.0, [*shift], 1.0, [*shear], fill=[0.0], center=[0.0, 0.0])
    return moved


def sheared_x(image: Tensor, slope: float) -> Tensor:
    return affine(image, shear=(math.degrees(math.atan(slope)), 0.0))


def sheared_y(image: Tensor, slope: float) -> Tensor:
    return affine(image, shear=(0.0, math.degrees(math.atan(slope))))


def moved_x(image: Tensor, pixels: float) -> Tensor:
    return affine(image, shift=(int(pixels), 0))


def moved_y(image: Tensor, pixels: float) -> Tensor:
    return affine(image, shift=(0, int(pixels)))


def on_a_border(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Whether a source lies within 0.0001 pixels of a border, where float32 decides by its rounding."""
    height, width = size
    scale = 2.0 ** (geometry.FRACTION_BITS + 1)
    x = 2.0 * torch.arange(width, dtype=torch.float64) + 1 - width
    y = (2.0 * torch.arange(height, dtype=torch.float64) + 1 - height)[:, None]
    m = maps.to(torch.float64)[:, :, None, None].unbind(1)
    sources = torch.stack([m[0] * x + m[1] * y + m[2], m[3] * x + m[4] * y + m[5]]) / scale
    return ((sources - sources.round()).abs() < 1e-4).any(dim=0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("maps", "theirs", "limit"),
    [
        (geometry.rotation_map, rotated, 30.0),
        (geometry.shear_x_map, sheared_x, 0.3),
        (geometry.shear_y_map, sheared_y, 0.3),
        (geometry.rotation_map, rotated, 135.0),
        (geometry.shear_x_map, sheared_x, 0.99),
        (geometry.shear_y_map, sheared_y, 0.99),
    ],
    ids=["rotate", "shear_x", "shear_y", "rotate wide", "shear_x wide", "shear_y wide"],
)
def test_turns_and_shears_pick_torchvisions_pixels(
    maps: Callable[..., np.ndarray], theirs: One, limit: float, channels: int, size: tuple[int, int]
) -> None:
    values = torch.cat([torch.zeros(1), spread(-limit, limit, 63)]).double()
    batch = images(64, channels, size)
    inverse = torch.from_numpy(maps(values.numpy(), size))
    result, expected = geometry.warp(batch, inverse), one_by_one(batch, values, theirs)
    undecided = on_a_border(inverse, size)
    # At 135 degrees both diagonals of an image fall on borders.
    assert undecided.float().mean() < (0.002 if limit < 90 else 0.005)
    differs = (result != expected).any(dim=1)
    assert not (differs & ~undecided).any()
    assert torch.equal(result[0], batch[0])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("maps", "theirs"),
    [(geometry.translation_x_map, moved_x), (geometry.translation_y_map, moved_y)],
    ids=["translate_x", "translate_y"],
)
def test_translations_are_torchvisions(
    maps: Callable[..., np.ndarray], theirs: One, channels: int, size: tuple[int, int]
) -> None:
    values = torch.arange(-10.0, 11.0).double()
    batch = images(21, channels, size)
    result = geometry.warp(batch, torch.from_numpy(maps(values.numpy(), size)))
    assert torch.equal(result, one_by_one(batch, values, theirs))


def test_a_translation_past_the_edge_leaves_black() -> None:
    batch = images(8, 3, (7, 12))
    far = np.array([12.0, -12.0, 99.0, -99.0, 12.0, 13.0, -13.0, 5000.0])
    assert not geometry.warp(batch, torch.from_numpy(geometry.translation_x_map(far, (7, 12)))).any()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("padding", [0, 1, 4, 40])
def test_crop_and_mirror_is_torchvisions(padding: int, channels: int, size: tuple[int, int]) -> None:
    batch = images(40, channels, size)
    generator = torch.Generator().manual_seed(padding)
    top = torch.randint(0, 2 * padding + 1, (40,), generator=generator)
    left = torch.randint(0, 2 * padding + 1, (40,), generator=generator)
    top[:4], left[:4] = torch.tensor([0, 0, 2, 2]) * padding, torch.tensor([0, 2, 0, 2]) * padding
    mirror = torch.arange(40) % 2 == 1

    def theirs(image: Tensor, place: float) -> Tensor:
        at = int(place)
        padded = reference.pad(image, [padding] * 4)
        cropped: Tensor = reference.crop(padded, int(top[at]), int(left[at]), *size)
        mirrored: Tensor = reference.horizontal_flip(cropped)
        return mirrored if mirror[at] else cropped

    result = geometry.crop_and_mirror(batch, padding=padding, top_B=top, left_B=left, mirror_B=mirror)
    assert torch.equal(result, one_by_one(batch, torch.arange(40.0), theirs))


SINGLE: dict[Operation, One] = {
    Operation.AUTOCONTRAST: lambda image, _: reference.autocontrast(image),
    Operation.BRIGHTNESS: reference.adjust_brightness,
    Operation.COLOUR: reference.adjust_saturation,
    Operation.CONTRAST: reference.adjust_contrast,
    Operation.EQUALIZE: lambda image, _: reference.equalize(image),
    Operation.POSTERIZE: lambda image, bits: reference.posterize(image, int(bits)),
    Operation.SHARPNESS: reference.adjust_sharpness,
    Operation.SOLARIZE: lambda image, level: reference.solarize(image, level) if level <= 255 else image,
    Operation.IDENTITY: lambda image, _: image,
    Operation.ROTATE: rotated,
    Operation.SHEAR_X: sheared_x,
    Operation.SHEAR_Y: sheared_y,
    Operation.TRANSLATE_X: moved_x,
    Operation.TRANSLATE_Y: moved_y,
}


@pytest.mark.parametrize(
    "step",
    [RandAugmentStep(op="randaugment", operations=1), TrivialAugmentStep(op="trivial_augment")],
    ids=lambda step: step.op,
)
@pytest.mark.parametrize("channels", [1, 3])
def test_each_sample_gets_what_the_table_says(step: Step, channels: int) -> None:
    size = (20, 44)
    params = draw((step,), np.arange(300), seed=3, view=0, size=size)
    (part,) = params.parts
    assert isinstance(part, OperationsParams)
    batch = images(300, channels, size)
    result = render(batch, params)
    seen = set()
    for row, (number, value) in enumerate(
        zip(part.operation_BK[:, 0].tolist(), part.magnitude_BK[:, 0].tolist(), strict=True)
    ):
        expected = SINGLE[Operation(number)](batch[row], value)
        border = (
            on_a_border(part.map_BK6[row], size)[0] if number >= Operation.ROTATE else torch.zeros(size) > 0
        )
        apart = (result[row].int() - expected.int()).abs().amax(dim=0)
        assert int(apart[~border].max()) <= 1, (Operation(number), value)
        seen.add(number)
    assert seen == set(Operation)
