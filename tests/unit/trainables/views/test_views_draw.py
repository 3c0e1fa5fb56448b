"""Drawing: pure, addressed by sample id, and as random as it claims."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from trainables.config.views import (
    CropFlipStep,
    CutmixStep,
    CutoutStep,
    MixupStep,
    RandAugmentStep,
    RandomResizedCropStep,
    Recipe,
    TrivialAugmentStep,
)
from trainables.seeds import mix
from trainables.views.crop_flip import CropFlipParams
from trainables.views.cutout import CutoutParams
from trainables.views.draw import draw
from trainables.views.operations import Operation, OperationsParams
from trainables.views.params import MixingParams, ViewParams
from trainables.views.randaugment import RANGES
from trainables.views.render import render
from trainables.views.uniforms import FIELDS_PER_STEP, Uniforms, view_key

CROP = CropFlipStep(op="crop_flip")
AUGMENT = RandAugmentStep(op="randaugment")
CUT = CutoutStep(op="cutout")
WEAK: Recipe = (CROP,)
STRONG: Recipe = (CROP, AUGMENT, CUT)
SIZE = (32, 32)

MIXED: Recipe = (
    RandomResizedCropStep(op="random_resized_crop"),
    CutmixStep(op="cutmix"),
    TrivialAugmentStep(op="trivial_augment"),
    MixupStep(op="mixup"),
)

recipes = st.sampled_from([(), WEAK, STRONG, (CUT, CUT), (AUGMENT, CROP), MIXED])
sample_id_lists = st.lists(st.integers(0, 2**62), min_size=1, max_size=20)


def tensors(params: ViewParams) -> list[Tensor]:
    columns = [params.sample_ids_B]
    for part in params.parts:
        columns += [value for value in vars(part).values() if isinstance(value, Tensor)]
        columns += tensors(part.partners) if isinstance(part, MixingParams) else []
    return columns


def same(a: ViewParams, b: ViewParams) -> bool:
    return a.size == b.size and all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


def crop(recipe: Recipe = WEAK, n: int = 20_000, seed: int = 1, view: int = 0) -> CropFlipParams:
    part = draw(recipe, np.arange(n), seed=seed, view=view, size=SIZE).parts[0]
    assert isinstance(part, CropFlipParams)
    return part


def augment(step: RandAugmentStep, n: int, size: tuple[int, int] = SIZE) -> OperationsParams:
    (part,) = draw((step,), np.arange(n), seed=1, view=0, size=size).parts
    assert isinstance(part, OperationsParams)
    return part


def cutout(step: CutoutStep, n: int, size: tuple[int, int]) -> CutoutParams:
    (part,) = draw((step,), np.arange(n), seed=1, view=0, size=size).parts
    assert isinstance(part, CutoutParams)
    return part


@settings(deadline=None)
@given(recipe=recipes, sample_ids=sample_id_lists, data=st.data())
def test_some_ids_draw_what_they_draw_among_all(
    recipe: Recipe, sample_ids: list[int], data: st.DataObject
) -> None:
    rows = data.draw(st.lists(st.integers(0, len(sample_ids) - 1), max_size=30))
    ids = np.array(sample_ids, dtype=np.int64)
    population = np.unique(ids)
    every = draw(recipe, ids, seed=9, view=2, size=(28, 20), population=population)
    chosen = ids[np.array(rows, dtype=np.int64)]
    some = draw(recipe, chosen, seed=9, view=2, size=(28, 20), population=population)
    assert len(some) == len(rows)
    assert same(some, every.take(torch.tensor(rows, dtype=torch.int64)))


@settings(deadline=None)
@given(recipe=recipes, seed=st.integers(0, 2**63), view=st.integers(0, 9999))
def test_a_view_is_drawn_again_the_same(recipe: Recipe, seed: int, view: int) -> None:
    ids = np.arange(5)
    first, again = (draw(recipe, ids, seed=seed, view=view, size=SIZE, population=ids) for _ in range(2))
    assert same(first, again)


def test_drawing_takes_nothing_from_the_global_generators() -> None:
    torch_before = torch.random.get_rng_state()
    numpy_before = np.random.get_state(legacy=False)["state"]["key"].copy()
    for recipe in (STRONG, MIXED):
        draw(recipe, np.arange(100), seed=1, view=0, size=SIZE, population=np.arange(100))
    assert torch.equal(torch_before, torch.random.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state(legacy=False)["state"]["key"])


def test_an_empty_recipe_has_rows_and_no_parts() -> None:
    params = draw((), np.array([4, 7]), seed=1, view=0, size=SIZE)
    assert (len(params), params.parts) == (2, ())


@pytest.mark.parametrize("other", ["seed", "view", "recipe"])
def test_other_seeds_views_and_recipes_draw_independently(other: str) -> None:
    here = crop()
    there = {"seed": crop(seed=2), "view": crop(view=1), "recipe": crop(STRONG)}[other]
    n = len(here.top_B)
    for a, b, chance in (
        (here.top_B, there.top_B, 1 / 9),
        (here.left_B, there.left_B, 1 / 9),
        (here.flip_B, there.flip_B, 1 / 2),
    ):
        agree = float((a == b).float().mean())
        assert abs(agree - chance) < 5 * (chance * (1 - chance) / n) ** 0.5


def test_two_steps_of_one_recipe_draw_independently() -> None:
    first, second = draw((CROP, CROP), np.arange(20_000), seed=1, view=0, size=SIZE).parts
    assert isinstance(first, CropFlipParams)
    assert isinstance(second, CropFlipParams)
    assert abs(float((first.top_B == second.top_B).float().mean()) - 1 / 9) < 0.012


def test_the_size_scales_the_draw_and_does_not_redraw_it() -> None:
    small = cutout(CUT, 500, (32, 32)).box_B4.double()
    large = cutout(CUT, 500, (320, 320)).box_B4.double()
    assert float((large[:, :2] / 10 - small[:, :2]).abs().max()) <= 1.0


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.5, 1.0])
def test_mirrors_come_at_their_rate(probability: float) -> None:
    part = crop((CropFlipStep(op="crop_flip", flip_probability=probability),))
    assert (
        abs(float(part.flip_B.float().mean()) - probability)
        <= 5 * (probability * (1 - probability) / 20_000) ** 0.5
    )


@pytest.mark.parametrize("padding", [0, 4, 64])
def test_crops_are_uniform_over_all_places(padding: int) -> None:
    part = crop((CropFlipStep(op="crop_flip", padding=padding),))
    places = 2 * padding + 1
    for offsets in (part.top_B, part.left_B):
        counts = torch.bincount(offsets, minlength=places)
        assert len(counts) == places
        expected = 20_000 / places
        assert float((counts - expected).abs().max()) <= 5 * expected**0.5
    pairs = torch.bincount(part.top_B * places + part.left_B, minlength=places**2)
    assert float((pairs - 20_000 / places**2).abs().max()) <= 6 * (20_000 / places**2) ** 0.5 + 6


def test_operations_are_uniform_and_drawn_with_replacement() -> None:
    part = augment(RandAugmentStep(op="randaugment", operations=3), 14_000)
    assert part.operation_BK.shape == (14_000, 3)
    for place in range(3):
        counts = torch.bincount(part.operation_BK[:, place], minlength=14)
        assert len(counts) == 14
        assert float((counts - 1000).abs().max()) < 5 * 1000**0.5
    repeats = float((part.operation_BK[:, 0] == part.operation_BK[:, 1]).float().mean())
    assert abs(repeats - 1 / 14) < 0.011


@pytest.mark.parametrize(
    "operation", [Operation.BRIGHTNESS, Operation.ROTATE, Operation.SHEAR_Y, Operation.SOLARIZE]
)
def test_magnitudes_fill_their_range_evenly(operation: Operation) -> None:
    part = augment(RandAugmentStep(op="randaugment", operations=8), 7_000)
    values = part.magnitude_BK[part.operation_BK == operation].double()
    low, high = RANGES[operation]
    unit = (values - low) / (high - low)
    assert float(unit.min()) >= -1e-6
    assert float(unit.max()) <= 1 + 1e-6
    counts = torch.histc(unit.clamp(0, 1), bins=10, min=0, max=1)
    expected = len(values) / 10
    assert float((counts - expected).abs().max()) < 5 * expected**0.5


def test_bits_are_four_to_seven_alike() -> None:
    part = augment(RandAugmentStep(op="randaugment", operations=8), 7_000)
    bits = part.magnitude_BK[part.operation_BK == Operation.POSTERIZE]
    counts = torch.bincount(bits.long(), minlength=8)[4:]
    assert torch.equal(bits, bits.floor())
    assert len(counts) == 4
    assert float((counts - len(bits) / 4).abs().max()) < 5 * (len(bits) / 4) ** 0.5


def test_translations_are_whole_pixels_of_their_own_side() -> None:
    part = augment(RandAugmentStep(op="randaugment", operations=8), 4_000, size=(20, 100))
    across = part.magnitude_BK[part.operation_BK == Operation.TRANSLATE_X]
    down = part.magnitude_BK[part.operation_BK == Operation.TRANSLATE_Y]
    assert sorted(set(across.tolist())) == list(range(-30, 31))
    assert sorted(set(down.tolist())) == list(range(-6, 7))


@pytest.mark.parametrize("size", [(32, 32), (20, 44), (44, 20)])
@pytest.mark.parametrize("max_fraction", [0.0, 0.5, 1.0])
def test_cutout_fills_what_fixmatch_fills(max_fraction: float, size: tuple[int, int]) -> None:
    height, width = size
    step = CutoutStep(op="cutout", max_fraction=max_fraction)
    params = draw((step,), np.arange(300), seed=1, view=0, size=size)
    result = render(torch.full((300, 3, *size), 9, dtype=torch.uint8), params)
    uniforms = Uniforms.of(view_key((step,), seed=1, view=0), np.arange(300))
    for row, (u, x, y) in enumerate(zip(*(uniforms.unit(n).tolist() for n in range(3)), strict=True)):
        # The published code, except for its source of random numbers.
        side = u * max_fraction * width
        picture = Image.new("RGB", (width, height), (9, 9, 9))
        if side > 0:
            left, top = int(max(0, x * width - side / 2)), int(max(0, y * height - side / 2))
            box = (left, top, int(min(width, left + side)), int(min(height, top + side)))
            ImageDraw.Draw(picture).rectangle(box, (125, 123, 114))
        assert np.array_equal(result[row].permute(1, 2, 0).numpy(), np.asarray(picture))


def test_boxes_slide_in_at_the_left_and_top_and_are_cut_at_the_right_and_bottom() -> None:
    box = cutout(CUT, 20_000, (32, 32)).box_B4
    width, height = box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]
    inside = (box[:, 2] < 32) & (box[:, 3] < 32)
    assert torch.equal(width[inside], height[inside])
    assert ((box[:, 0] == 0) & (width == 16)).any()
    assert (width[box[:, 2] == 32] < height[box[:, 2] == 32]).any()
    assert int(box.min()) == 0
    assert int(box.max()) == 32
    assert int(width.max()) == int(height.max()) == 16


def test_grey_images_are_cut_with_the_mean_of_the_fill() -> None:
    params = draw((CUT,), np.arange(50), seed=1, view=0, size=SIZE)
    result = render(torch.zeros(50, 1, *SIZE, dtype=torch.uint8), params)
    assert set(result.flatten().tolist()) == {0, 121}


def test_parameters_move_and_keep_their_rows() -> None:
    params = draw((*STRONG, *MIXED), np.arange(6), seed=1, view=0, size=SIZE, population=np.arange(6))
    moved = params.to("meta")
    assert all(column.device.type == "meta" for column in tensors(moved))
    assert len(moved.take(torch.tensor([1, 2], device="meta"))) == 2
    assert same(params.to("cpu"), params)


@pytest.mark.parametrize("bad", [np.zeros((2, 2), dtype=np.int64), np.array([0.0, 1.0])])
def test_ids_must_be_a_row_of_whole_numbers(bad: NDArray[np.int64]) -> None:
    with pytest.raises(ValueError, match="1-D array of integers"):
        draw(WEAK, bad, seed=1, view=0, size=SIZE)


def test_a_size_must_have_pixels() -> None:
    with pytest.raises(ValueError, match="at least 1; got"):
        draw(WEAK, np.arange(2), seed=1, view=0, size=(0, 32))


def test_a_field_of_the_next_step_is_refused() -> None:
    with pytest.raises(ValueError, match=r"outside 0\.\.63"):
        Uniforms.of(1, np.arange(2)).unit(FIELDS_PER_STEP)


def test_mix_is_the_finaliser_of_splitmix64() -> None:
    # The first outputs of SplitMix64 with seed 0, as in the reference implementation by S. Vigna.
    golden = 0x9E3779B97F4A7C15
    states = np.array([golden * n % 2**64 for n in (1, 2, 3)], dtype=np.uint64)
    assert mix(states).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_uniforms_are_even_in_each_bit() -> None:
    draws = Uniforms.of(view_key(STRONG, seed=0, view=0), np.arange(20_000)).at_step(1)
    words = (draws.unit(5) * 2.0**53).astype(np.uint64)
    for bit in range(53):
        share = float(((words >> np.uint64(bit)) & np.uint64(1)).mean())
        assert abs(share - 0.5) < 5 * 0.5 / 20_000**0.5


def test_these_numbers_never_change() -> None:
    """A promise to every cache on disk: if this fails, the version of the scheme must go up."""
    params = draw(STRONG, np.array([0, 1, 2, 10**12]), seed=7, view=3, size=SIZE)
    cropped, augmented, cut = params.parts
    assert isinstance(cropped, CropFlipParams)
    assert isinstance(augmented, OperationsParams)
    assert isinstance(cut, CutoutParams)

    assert view_key(STRONG, seed=7, view=3) == 0xA0F5A2CA3914F00D
    assert cropped.top_B.tolist() == [6, 4, 8, 1]
    assert cropped.left_B.tolist() == [8, 5, 4, 8]
    assert cropped.flip_B.tolist() == [False, True, True, False]
    assert augmented.operation_BK.tolist() == [[8, 4], [9, 8], [6, 5], [9, 4]]
    assert [round(value, 4) for value in augmented.magnitude_BK[:, 0].tolist()] == [
        0.0,
        15.7097,
        0.7562,
        -28.1688,
    ]
    assert augmented.magnitude_BK[:, 1].tolist() == [0.0, 0.0, 4.0, 0.0]
    turn = [4134533743, -1162916508, 32 << 32, 1162916508, 4134533743, 32 << 32]
    assert int((augmented.map_BK6[1, 0] - torch.tensor(turn)).abs().max()) <= 1
    assert cut.box_B4.tolist() == [[10, 23, 19, 32], [15, 18, 22, 25], [18, 7, 25, 14], [17, 10, 22, 15]]


def test_these_uniforms_never_change() -> None:
    draws = Uniforms.of(view_key(STRONG, seed=7, view=3), np.array([0, 1, 2, 10**12]))
    first = ["0x1.7db382c625005p-1", "0x1.eee9b80123e58p-2", "0x1.f5c2a040b4586p-1", "0x1.4506a2dc43290p-3"]
    later = ["0x1.d29f44af4b9e0p-2", "0x1.2775362ecafbbp-1", "0x1.5ee944c9fc20fp-1", "0x1.3f1b088e748b4p-1"]
    assert draws.unit(0).tolist() == [float.fromhex(text) for text in first]
    assert draws.at_step(2).unit(1).tolist() == [float.fromhex(text) for text in later]
