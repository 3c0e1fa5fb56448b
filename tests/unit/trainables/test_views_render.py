"""Rendering: a pure function of each row, whatever else is in the batch."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainables.config.views import CropFlipStep, CutoutStep, RandAugmentStep, Recipe
from trainables.errors import DataError
from trainables.views.draw import draw
from trainables.views.normalise import normalise
from trainables.views.render import render

CROP = CropFlipStep(op="crop_flip", padding=3)
AUGMENT = RandAugmentStep(op="randaugment")
CUT = CutoutStep(op="cutout")
STRONG: Recipe = (CROP, AUGMENT, CUT)
SIZE = (12, 15)
N = 40


def pictures(channels: int) -> Tensor:
    generator = torch.Generator().manual_seed(channels)
    return torch.randint(0, 256, (N, channels, *SIZE), generator=generator, dtype=torch.uint8)


recipes = st.sampled_from(
    [(CROP,), (AUGMENT,), (CUT,), STRONG, (CUT, RandAugmentStep(op="randaugment", operations=5))]
)
channels = st.sampled_from([1, 3])


@settings(deadline=None, max_examples=40)
@given(recipe=recipes, channels=channels, order=st.permutations(range(N)), view=st.integers(0, 99))
def test_a_view_does_not_depend_on_the_order_of_the_batch(
    recipe: Recipe, channels: int, order: list[int], view: int
) -> None:
    batch, rows = pictures(channels), torch.tensor(order)
    params = draw(recipe, np.arange(N), seed=1, view=view, size=SIZE)
    assert torch.equal(render(batch[rows], params.take(rows)), render(batch, params)[rows])


@settings(deadline=None, max_examples=40)
@given(
    recipe=recipes,
    channels=channels,
    cuts=st.sets(st.integers(1, N - 1), max_size=6),
    view=st.integers(0, 99),
)
def test_a_view_does_not_depend_on_how_the_batch_is_split(
    recipe: Recipe, channels: int, cuts: set[int], view: int
) -> None:
    batch, ids = pictures(channels), np.arange(N)
    whole = render(batch, draw(recipe, ids, seed=1, view=view, size=SIZE))
    edges = [0, *sorted(cuts), N]
    pieces = [
        render(batch[a:b], draw(recipe, ids[a:b], seed=1, view=view, size=SIZE)) for a, b in pairwise(edges)
    ]
    assert torch.equal(torch.cat(pieces), whole)


@settings(deadline=None, max_examples=20)
@given(recipe=recipes, views=st.permutations(range(4)))
def test_views_replay_in_another_order(recipe: Recipe, views: list[int]) -> None:
    batch = pictures(3)

    def shown(view: int) -> Tensor:
        return render(batch, draw(recipe, np.arange(N), seed=5, view=view, size=SIZE))

    first = {view: shown(view) for view in range(4)}
    assert all(torch.equal(shown(view), first[view]) for view in views)


def test_views_differ_from_each_other_and_from_the_image() -> None:
    batch = pictures(3)
    shown = [render(batch, draw(STRONG, np.arange(N), seed=1, view=view, size=SIZE)) for view in range(2)]
    assert (shown[0] != shown[1]).any(dim=(1, 2, 3)).float().mean() > 0.9
    assert (shown[0] != batch).any(dim=(1, 2, 3)).float().mean() > 0.9


@pytest.mark.parametrize("recipe", [(CROP,), (AUGMENT,), (CUT,)], ids=lambda recipe: recipe[0].op)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_images_that_came_are_left_as_they_were(recipe: Recipe, channels: int) -> None:
    batch = pictures(channels)
    result = render(batch, draw(recipe, np.arange(N), seed=1, view=0, size=SIZE))
    assert torch.equal(batch, pictures(channels))
    assert result.dtype == torch.uint8
    assert result.shape == batch.shape
    assert result.is_contiguous()


def test_an_empty_recipe_shows_the_images_unchanged() -> None:
    batch = pictures(3)
    assert torch.equal(render(batch, draw((), np.arange(N), seed=1, view=0, size=SIZE)), pictures(3))


def test_steps_run_in_the_order_of_the_recipe() -> None:
    # Cutout last is never cropped away: its colour stands in full; cutout first may be.
    batch = torch.zeros(N, 3, *SIZE, dtype=torch.uint8)
    whole = CutoutStep(op="cutout", max_fraction=1.0)
    for recipe, place in (((CROP, whole), 1), ((whole, CROP), 0)):
        params = draw(recipe, np.arange(N), seed=1, view=0, size=SIZE)
        expected = batch
        for part in (params.parts[0], params.parts[1]):
            expected = part.apply(expected)
        result = render(batch, params)
        assert torch.equal(result, expected)
        boxes = params.parts[place].box_B4  # type: ignore[attr-defined]
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        filled = (result[:, 0] == 125).sum(dim=(1, 2))
        assert torch.equal(filled, area) is (place == 1)


def test_an_empty_batch_comes_back_empty() -> None:
    params = draw(STRONG, np.arange(0), seed=1, view=0, size=SIZE)
    assert render(pictures(3)[:0], params).shape == (0, 3, *SIZE)


def test_images_in_another_memory_layout_show_the_same() -> None:
    batch = pictures(3)
    params = draw(STRONG, np.arange(N), seed=1, view=0, size=SIZE)
    assert torch.equal(render(batch.to(memory_format=torch.channels_last), params), render(batch, params))
    turned = batch.transpose(2, 3).contiguous().transpose(2, 3)
    assert torch.equal(render(turned, params), render(batch, params))


@pytest.mark.parametrize(
    "bad",
    [
        torch.zeros(N, 3, *SIZE),
        torch.zeros(N, 2, *SIZE, dtype=torch.uint8),
        torch.zeros(3, *SIZE, dtype=torch.uint8),
    ],
    ids=["float", "two channels", "no batch"],
)
def test_images_of_another_kind_are_refused(bad: Tensor) -> None:
    with pytest.raises(DataError, match="uint8 images of shape"):
        render(bad, draw(STRONG, np.arange(N), seed=1, view=0, size=SIZE))


def test_a_view_of_other_images_is_refused() -> None:
    params = draw(STRONG, np.arange(N), seed=1, view=0, size=SIZE)
    with pytest.raises(ValueError, match="drawn for 40 images"):
        render(pictures(3)[:3], params)
    with pytest.raises(ValueError, match="came; take the rows"):
        render(pictures(3).transpose(2, 3), params)


@pytest.mark.parametrize("channels", [1, 3])
def test_normalise_is_torchvisions(channels: int) -> None:
    batch = pictures(channels)
    mean, std = [0.5071, 0.4867, 0.4408][:channels], [0.2675, 0.2565, 0.2761][:channels]
    result = normalise(batch, mean, std)
    expected = reference.normalize(reference.to_dtype(batch, torch.float32, scale=True), mean, std)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(batch, pictures(channels))


def test_normalise_gives_minus_mean_over_std_for_black() -> None:
    black = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    assert normalise(black, [0.5], [0.25]).tolist() == [[[[-2.0, -2.0], [-2.0, -2.0]]]]


def test_normalise_wants_a_number_for_each_channel() -> None:
    with pytest.raises(ValueError, match="3 channels, but mean has 1"):
        normalise(pictures(3), [0.5], [0.5])
    with pytest.raises(ValueError, match="std must be positive"):
        normalise(pictures(1), [0.5], [0.0])
