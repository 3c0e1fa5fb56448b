"""A teacher on a GPU and a student on a CPU must see the same levels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainables.config.views import CropFlipStep, CutoutStep, RandAugmentStep
from trainables.views.draw import draw
from trainables.views.render import render

RECIPE = (CropFlipStep(op="crop_flip"), RandAugmentStep(op="randaugment"), CutoutStep(op="cutout"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("channels", [1, 3])
def test_a_gpu_shows_the_very_view_that_the_cpu_shows(channels: int) -> None:
    generator = torch.Generator().manual_seed(channels)
    batch = torch.randint(0, 256, (500, channels, 32, 32), generator=generator, dtype=torch.uint8)
    for view in range(20):
        params = draw(RECIPE, np.arange(500), seed=1, view=view, size=(32, 32))
        assert torch.equal(render(batch.cuda(), params.to("cuda")).cpu(), render(batch, params))
