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

from tests.unit.trainables.views.view_examples import (
    AUGMENT,
    CROP,
    CUT,
    IDS,
    SIZE,
    STEPS,
    N,
    chains,
    channels,
    pictures,
    pictures_for,
    view_of,
)
from trainables.config.views import CutoutStep, Recipe, Step
from trainables.errors import DataError
from trainables.views.cutout import CutoutParams
from trainables.views.draw import draw
from trainables.views.normalise import normalise
from trainables.views.params import StepParams
from trainables.views.render import render

STRONG: Recipe = (CROP, AUGMENT, CUT)


@settings(deadline=None, max_examples=25)
@given(recipe=chains, channels=channels, order=st.permutations(range(N)), view=st.integers(0, 99))
def test_a_view_does_not_depend_on_the_order_of_the_batch(
    recipe: Recipe, channels: int, order: list[int], view: int
) -> None:
    batch, rows = pictures_for(recipe, channels), torch.tensor(order)
    size = (int(batch.shape[2]), int(batch.shape[3]))
    params = draw(recipe, IDS, seed=1, view=view, size=size, population=IDS)
    whole = view_of(recipe, batch, torch.arange(N), view)
    assert torch.equal(view_of(recipe, batch, rows, view), whole[rows])
    assert torch.equal(render(batch[rows], params.take(rows), lambda places: batch[places]), whole[rows])


@settings(deadline=None, max_examples=25)
@given(
    recipe=chains,
    channels=channels,
    cuts=st.sets(st.integers(1, N - 1), max_size=4),
    view=st.integers(0, 99),
)
def test_a_view_does_not_depend_on_how_the_batch_is_split(
    recipe: Recipe, channels: int, cuts: set[int], view: int
) -> None:
    batch = pictures_for(recipe, channels)
    edges = [0, *sorted(cuts), N]
    pieces = [view_of(recipe, batch, torch.arange(a, b), view) for a, b in pairwise(edges)]
    assert torch.equal(torch.cat(pieces), view_of(recipe, batch, torch.arange(N), view))


@settings(deadline=None, max_examples=25)
@given(recipe=chains, channels=channels, workers=st.integers(2, 5), view=st.integers(0, 99))
def test_a_view_does_not_depend_on_the_number_of_workers(
    recipe: Recipe, channels: int, workers: int, view: int
) -> None:
    batch = pictures_for(recipe, channels)
    whole = view_of(recipe, batch, torch.arange(N), view)
    for worker in range(workers):
        rows = torch.arange(worker, N, workers)
        assert torch.equal(view_of(recipe, batch, rows, view), whole[rows])


@settings(deadline=None, max_examples=10)
@given(recipe=chains, channels=channels, view=st.integers(0, 99))
def test_a_view_does_not_depend_on_the_number_of_threads(recipe: Recipe, channels: int, view: int) -> None:
    batch, before = pictures_for(recipe, channels), torch.get_num_threads()
    shown = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            shown.append(view_of(recipe, batch, torch.arange(N), view))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*shown)


@settings(deadline=None, max_examples=10)
@given(recipe=chains, views=st.permutations(range(4)))
def test_views_replay_in_another_order(recipe: Recipe, views: list[int]) -> None:
    batch, rows = pictures_for(recipe, 3), torch.arange(N)
    first = {view: view_of(recipe, batch, rows, view) for view in range(4)}
    assert all(torch.equal(view_of(recipe, batch, rows, view), first[view]) for view in views)


def test_views_differ_from_each_other_and_from_the_image() -> None:
    batch = pictures(3)
    shown = [render(batch, draw(STRONG, np.arange(N), seed=1, view=view, size=SIZE)) for view in range(2)]
    assert (shown[0] != shown[1]).any(dim=(1, 2, 3)).float().mean() > 0.9
    assert (shown[0] != batch).any(dim=(1, 2, 3)).float().mean() > 0.9


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.op)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_images_that_came_are_left_as_they_were(step: Step, channels: int) -> None:
    batch = pictures_for((step,), channels)
    result = view_of((step,), batch, torch.arange(N), 1)
    assert torch.equal(batch, pictures_for((step,), channels))
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
        for part in params.parts:
            assert isinstance(part, StepParams)
            expected = part.apply(expected)
        result = render(batch, params)
        assert torch.equal(result, expected)
        cut = params.parts[place]
        assert isinstance(cut, CutoutParams)
        boxes = cut.box_B4
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        filled = (result[:, 0] == 125).sum(dim=(1, 2))
        assert torch.equal(filled, area) is (place == 1)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.op)
def test_an_empty_batch_comes_back_empty(step: Step) -> None:
    batch = pictures_for((step,), 3)
    assert view_of((step,), batch, torch.arange(0), 0).shape == (0, *batch.shape[1:])


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.op)
def test_images_in_another_memory_layout_show_the_same(step: Step) -> None:
    batch = pictures_for((step,), 3).contiguous()
    expected = view_of((step,), batch, torch.arange(N), 3)
    for other in (
        batch.to(memory_format=torch.channels_last),
        batch.transpose(2, 3).contiguous().transpose(2, 3),
        torch.cat([batch, batch], dim=-1)[..., : batch.shape[-1]],
    ):
        assert not other.is_contiguous()
        assert torch.equal(view_of((step,), other, torch.arange(N), 3), expected)


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
