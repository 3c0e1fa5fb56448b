"""A teacher on a GPU and a student on a CPU must see the same levels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainables.config.views import (
    CropFlipStep,
    CutmixStep,
    CutoutStep,
    MixupStep,
    RandAugmentStep,
    RandomResizedCropStep,
    Recipe,
    RotationStep,
    TrivialAugmentStep,
    TurnBy,
)
from trainables.views.draw import draw
from trainables.views.render import render

RECIPES: dict[str, Recipe] = {
    "strong": (CropFlipStep(op="crop_flip"), RandAugmentStep(op="randaugment"), CutoutStep(op="cutout")),
    "mixed": (
        RandomResizedCropStep(op="random_resized_crop"),
        TrivialAugmentStep(op="trivial_augment"),
        RotationStep(op="rotation", by=TurnBy.RANDOM),
        CutmixStep(op="cutmix"),
        MixupStep(op="mixup"),
    ),
}
IDS = np.arange(500)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_gpu_shows_the_very_view_that_the_cpu_shows(recipe: Recipe, channels: int) -> None:
    generator = torch.Generator().manual_seed(channels)
    batch = torch.randint(0, 256, (500, channels, 32, 32), generator=generator, dtype=torch.uint8)
    for view in range(20):
        params = draw(recipe, IDS, seed=1, view=view, size=(32, 32), population=IDS)
        here = render(batch, params, lambda rows: batch[rows])
        on_gpu = batch.cuda()
        there = render(on_gpu, params.to("cuda"), lambda rows: on_gpu[rows])  # noqa: B023 - used at once
        assert torch.equal(there.cpu(), here)
