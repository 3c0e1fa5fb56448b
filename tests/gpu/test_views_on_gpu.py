"""A teacher on a GPU and a student on a CPU must see the same levels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.trainables.views.view_examples import STEPS, N, chains, channels, pictures_for, view_of
from trainables.config.views import Recipe, Step
from trainables.views.draw import draw
from trainables.views.render import render

pytestmark = pytest.mark.gpu
IDS = np.arange(500)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.op)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_gpu_shows_the_very_view_that_the_cpu_shows(
    device: torch.device, step: Step, channels: int
) -> None:
    generator = torch.Generator().manual_seed(channels)
    batch = torch.randint(0, 256, (500, channels, 32, 32), generator=generator, dtype=torch.uint8)
    on_gpu = batch.to(device)
    for view in range(20):
        params = draw((step,), IDS, seed=1, view=view, size=(32, 32), population=IDS)
        here = render(batch, params, lambda rows: batch[rows])
        there = render(on_gpu, params.to(device), lambda rows: on_gpu[rows])
        assert torch.equal(there.cpu(), here)


@settings(deadline=None, max_examples=50)
@given(recipe=chains, channels=channels, view=st.integers(0, 99))
def test_a_view_does_not_depend_on_the_device(
    device: torch.device, recipe: Recipe, channels: int, view: int
) -> None:
    batch, rows = pictures_for(recipe, channels), torch.arange(N)
    there = view_of(recipe, batch.to(device), rows, view)
    assert there.device.type == device.type
    assert torch.equal(there.cpu(), view_of(recipe, batch, rows, view))
