"""One step of each kind, chains of them, and pictures to show, for tests of what a view may not depend on."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from trainables.config.views import (
    CropFlipStep,
    CutmixStep,
    CutoutStep,
    MixupStep,
    QuarterTurnStep,
    RandAugmentStep,
    RandomResizedCropStep,
    Recipe,
    RotationStep,
    Step,
    TrivialAugmentStep,
    TurnBy,
)
from trainables.views.draw import draw
from trainables.views.render import render

SIZE = (12, 15)
N = 40
# Ids that are no places: a step that mistook one for the other would not find its partners.
IDS = 3 * np.arange(N) + 1
CROP = CropFlipStep(op="crop_flip", padding=3)
AUGMENT = RandAugmentStep(op="randaugment")
CUT = CutoutStep(op="cutout")
STEPS: list[Step] = [
    CROP,
    AUGMENT,
    CUT,
    RandomResizedCropStep(op="random_resized_crop"),
    TrivialAugmentStep(op="trivial_augment"),
    RotationStep(op="rotation"),
    RotationStep(op="rotation", by=TurnBy.RANDOM),
    QuarterTurnStep(op="quarter_turn", turns=3),
    MixupStep(op="mixup", alpha=0.5),
    CutmixStep(op="cutmix", probability=0.8),
]
chains = st.lists(st.sampled_from(STEPS), min_size=1, max_size=4).map(tuple)
channels = st.sampled_from([1, 3])


def pictures(channels: int) -> Tensor:
    generator = torch.Generator().manual_seed(channels)
    return torch.randint(0, 256, (N, channels, *SIZE), generator=generator, dtype=torch.uint8)


def pictures_for(recipe: Recipe, channels: int) -> Tensor:
    """Square ones for recipes that turn them."""
    turns = any(step.op in ("rotation", "quarter_turn") for step in recipe)
    return pictures(channels)[..., : SIZE[0] if turns else None]


def view_of(recipe: Recipe, batch: Tensor, rows: Tensor, view: int) -> Tensor:
    """One view of some of the pictures, drawn for these alone, as a worker would that has no others.

    It is rendered where the pictures lie.
    """
    size = (int(batch.shape[2]), int(batch.shape[3]))
    params = draw(recipe, IDS[rows.numpy()], seed=1, view=view, size=size, population=IDS)
    shown = batch[rows.to(batch.device)]
    return render(shown, params.to(batch.device), lambda places: batch[places])
