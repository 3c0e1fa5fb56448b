"""Random-resized crops, TrivialAugment's magnitudes and rotations, against torchvision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as reference
from pydantic import ValidationError
from torch import Tensor
from torchvision.transforms import v2

from trainables.config.views import (
    RandomResizedCropStep,
    RotationStep,
    Step,
    TrivialAugmentStep,
    TurnBy,
)
from trainables.errors import DataError
from trainables.views.draw import draw
from trainables.views.geometry import stretch
from trainables.views.operations import Operation, OperationsParams
from trainables.views.params import StepParams
from trainables.views.resized_crop import ResizedCropParams
from trainables.views.rotation import RotationParams
from trainables.views.trivial_augment import BINS, magnitudes
from trainables.views.uniforms import Uniforms, view_key

RESIZED = RandomResizedCropStep(op="random_resized_crop")
TRIVIAL = TrivialAugmentStep(op="trivial_augment")
TURN = RotationStep(op="rotation")
SIZES = [(32, 32), (20, 44), (7, 12)]


def pictures(count: int, channels: int, size: tuple[int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(channels + size[1])
    batch = torch.randint(0, 256, (count, channels, *size), generator=generator, dtype=torch.uint8)
    batch[1] = 255
    batch[2] = (batch[2] > 128) * 255
    return batch


def drawn(step: Step, count: int, size: tuple[int, int] = (32, 32), view: int = 0) -> StepParams:
    (part,) = draw((step,), np.arange(count), seed=1, view=view, size=size).parts
    assert isinstance(part, StepParams)
    return part


def boxes(step: RandomResizedCropStep, count: int, size: tuple[int, int]) -> Tensor:
    part = drawn(step, count, size)
    assert isinstance(part, ResizedCropParams)
    return part.box_B4


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_stretched_box_is_torchvisions_to_one_level(channels: int, size: tuple[int, int]) -> None:
    height, width = size
    narrow = [[0, 0, 1, 1], [height - 1, width - 1, 1, 1], [2, 3, 1, 5], [1, 2, 4, 1], [0, 0, height, width]]
    box = torch.cat([torch.tensor(narrow), boxes(RESIZED, 60, size)])
    batch = pictures(len(box), channels, size)
    result = stretch(batch, box)
    for image, place, ours in zip(batch, box.tolist(), result, strict=True):
        # With torchvision's default, antialias=True, in its own arithmetic for bytes and in float32.
        whole = reference.resized_crop(image, *place, [height, width])
        exact = reference.resized_crop(image.float(), *place, [height, width])
        assert int((ours.int() - whole.int()).abs().max()) <= 1
        assert float((ours - exact).abs().max()) <= 0.5 + 1e-3
    assert torch.equal(result[4], batch[4])


def test_sums_of_large_images_do_not_overflow() -> None:
    size = (1200, 1800)  # 4 · 1200 · 1800 · 255 > 2³¹
    white = torch.full((1, 1, *size), 255, dtype=torch.uint8)
    assert torch.equal(stretch(white, torch.tensor([[100, 200, 700, 900]])), white)


@pytest.mark.parametrize("size", [*SIZES, (4, 64), (64, 4)])
@pytest.mark.parametrize(
    ("scale", "ratio"), [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.5, 1.0), (0.2, 5.0)), ((1.0, 1.0), (1.0, 1.0))]
)
def test_boxes_are_drawn_as_torchvision_draws_them(
    scale: tuple[float, float], ratio: tuple[float, float], size: tuple[int, int]
) -> None:
    height, width = size
    step = RandomResizedCropStep(op="random_resized_crop", scale=scale, ratio=ratio)
    uniforms = Uniforms.of(view_key((step,), seed=1, view=0), np.arange(200))
    units = np.stack([uniforms.unit(field) for field in range(22)], axis=1).tolist()
    # torchvision takes the middle when no attempt fits, as none does with a scale above 1.
    middle = v2.RandomResizedCrop(size, scale=(9.0, 9.0), ratio=ratio).make_params([torch.zeros(1, *size)])
    for row, box in zip(units, boxes(step, 200, size).tolist(), strict=True):
        expected = [middle[name] for name in ("top", "left", "height", "width")]
        for attempt in range(10):
            area = height * width * (scale[0] + row[2 * attempt] * (scale[1] - scale[0]))
            low, high = math.log(ratio[0]), math.log(ratio[1])
            aspect = math.exp(low + row[2 * attempt + 1] * (high - low))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                expected = [int(row[20] * (height - h + 1)), int(row[21] * (width - w + 1)), h, w]
                break
        assert box == expected


@pytest.mark.parametrize("key", ["scale", "ratio"])
def test_bounds_must_ascend(key: str) -> None:
    with pytest.raises(ValidationError, match="the lower bound comes first"):
        RandomResizedCropStep.from_plain({"op": "random_resized_crop", key: [0.9, 0.5]})


NAMES = {
    Operation.BRIGHTNESS: "Brightness",
    Operation.COLOUR: "Color",
    Operation.CONTRAST: "Contrast",
    Operation.POSTERIZE: "Posterize",
    Operation.SHARPNESS: "Sharpness",
    Operation.SOLARIZE: "Solarize",
    Operation.ROTATE: "Rotate",
    Operation.SHEAR_X: "ShearX",
    Operation.SHEAR_Y: "ShearY",
    Operation.TRANSLATE_X: "TranslateX",
    Operation.TRANSLATE_Y: "TranslateY",
}


@pytest.mark.parametrize("operation", NAMES, ids=lambda operation: operation.name.lower())
def test_trivial_augment_has_torchvisions_magnitudes(operation: Operation) -> None:
    theirs, _ = v2.TrivialAugmentWide._AUGMENTATION_SPACE[NAMES[operation]]
    values = theirs(BINS, 32, 32).double().numpy()
    if operation is Operation.SOLARIZE:
        values = 255 * values
    if operation in (Operation.TRANSLATE_X, Operation.TRANSLATE_Y):
        values = np.floor(values + 1e-4)  # float32 has 15.999999 in the middle, and would move by 15
    assert np.allclose(magnitudes()[operation], values, rtol=1e-6, atol=1e-6)


def test_trivial_augment_has_torchvisions_operations_signed_alike() -> None:
    part = drawn(TRIVIAL, 14_000)
    assert isinstance(part, OperationsParams)
    operations, values = part.operation_BK[:, 0], part.magnitude_BK[:, 0]
    counts = torch.bincount(operations, minlength=14)
    assert float((counts - 1000).abs().max()) < 5 * 1000**0.5
    for operation, name in NAMES.items():
        _, signed = v2.TrivialAugmentWide._AUGMENTATION_SPACE[name]
        centre = 1.0 if 1 <= operation <= 3 or operation is Operation.SHARPNESS else 0.0
        mine = values[operations == operation] - centre
        negative = float((mine < 0).sum() / (mine != 0).sum())
        assert negative == pytest.approx(0.5 if signed else 0.0, abs=0.08)
        table = torch.from_numpy(magnitudes()[operation]).float()
        assert float((mine.abs()[:, None] - table).abs().amin(dim=1).max()) < 1e-6
        assert len(set(mine.abs().tolist())) > 4


@pytest.mark.parametrize("channels", [1, 3])
def test_turns_are_torchvisions(channels: int) -> None:
    batch = pictures(8, channels, (9, 9))
    quarters = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])
    result = RotationParams(quarters).apply(batch)
    for image, turns, ours in zip(batch, quarters.tolist(), result, strict=True):
        assert torch.equal(ours, reference.rotate(image, 90.0 * turns))


def test_a_view_turns_by_its_number() -> None:
    for view in range(6):
        part = drawn(TURN, 5, view=view)
        assert isinstance(part, RotationParams)
        assert part.quarters_B.tolist() == [view % 4] * 5


def test_random_turns_are_all_alike() -> None:
    part = drawn(RotationStep(op="rotation", by=TurnBy.RANDOM), 4000)
    assert isinstance(part, RotationParams)
    assert float((torch.bincount(part.quarters_B, minlength=4) - 1000).abs().max()) < 5 * 1000**0.5


def test_images_that_are_not_square_are_not_turned() -> None:
    with pytest.raises(DataError, match=r"needs square images, these have 32 x 30 .* set data.image_size"):
        drawn(TURN, 5, size=(32, 30))


def test_these_draws_never_change() -> None:
    """A promise to every cache on disk: if this fails, the version of the scheme must go up."""
    trivial, turned = drawn(TRIVIAL, 5), drawn(RotationStep(op="rotation", by=TurnBy.RANDOM), 8)
    assert isinstance(trivial, OperationsParams)
    assert isinstance(turned, RotationParams)
    assert boxes(RESIZED, 4, (32, 32)).tolist() == [
        [4, 0, 28, 30],
        [6, 6, 17, 13],
        [0, 1, 30, 31],
        [0, 10, 18, 19],
    ]
    assert trivial.operation_BK[:, 0].tolist() == [7, 5, 5, 9, 0]
    assert [round(value, 4) for value in trivial.magnitude_BK[:, 0].tolist()] == [255.0, 8.0, 6.0, -31.5, 0.0]
    assert turned.quarters_B.tolist() == [2, 0, 1, 2, 3, 1, 2, 0]
