"""The first half of a view: what happens to each sample, drawn from its address alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.config.views import QuarterTurnStep, RandomResizedCropStep, Recipe
from trainables.views.crop_flip import draw_crop_flip
from trainables.views.cutout import draw_cutout
from trainables.views.mixing import Partners, draw_cutmix, draw_mixup, partner_rows
from trainables.views.params import Frame, MixingParams, StepParams, ViewParams
from trainables.views.randaugment import draw_randaugment
from trainables.views.resized_crop import boxes, draw_resized_crop
from trainables.views.rotation import draw_rotation, fixed_turn
from trainables.views.trivial_augment import draw_trivial_augment
from trainables.views.uniforms import Uniforms, view_key

DrawStep = Callable[[Any, Uniforms, Frame], StepParams]
DrawMixing = Callable[[Any, Uniforms, Frame, Partners], MixingParams]

STEPS: Final[Mapping[str, DrawStep]] = MappingProxyType(
    {
        "crop_flip": draw_crop_flip,
        "randaugment": draw_randaugment,
        "cutout": draw_cutout,
        "random_resized_crop": draw_resized_crop,
        "trivial_augment": draw_trivial_augment,
        "rotation": draw_rotation,
        "quarter_turn": fixed_turn,
    }
)
MIXING_STEPS: Final[Mapping[str, DrawMixing]] = MappingProxyType({"mixup": draw_mixup, "cutmix": draw_cutmix})


def draw(
    recipe: Recipe,
    sample_ids: NDArray[np.int64],
    *,
    seed: int,
    view: int,
    size: tuple[int, int],
    population: NDArray[np.int64] | None = None,
) -> ViewParams:
    """The parameters of one view of these samples, one row each, in the order given.

    A row is a pure function of (recipe, seed, view, sample id, size), and of the population where the recipe
    mixes samples: see `uniforms.py` for the numbers behind it. Two recipes that differ anywhere draw
    independently, even in the steps that they share; only in quarter turns at their end they may differ, and
    then the one shows what the other shows, turned.

    Args:
        recipe: steps in order; an empty recipe has no part.
        sample_ids: the samples' ids (not their places in a batch); any order, repeats allowed.
        seed: the experiment's seed.
        view: which view of the samples, counted from 0.
        size: height and width of the images in pixels.
        population: the ids of all training samples in ascending order; needed by recipes that mix samples.

    Raises:
        ValueError: if the ids are not a one-dimensional array of whole numbers, the size is not positive, or
            the recipe mixes samples and the population is missing or lacks some of them.
        DataError: if a step cannot be applied to images of this size.
    """
    ids = np.asarray(sample_ids)
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"sample ids must be a 1-D array of integers, got {ids.dtype} of shape {ids.shape}")
    if min(size) < 1:
        raise ValueError(f"size is (height, width) in pixels, both at least 1; got {size}")
    steps = _Steps(recipe, _key(recipe, seed=seed, view=view), Frame(*size, view), population)
    return steps.draw(ids.astype(np.int64), len(recipe))


def draw_boxes(
    recipe: Recipe,
    sample_ids: NDArray[np.int64],
    *,
    seed: int,
    view: int,
    sides_B2: NDArray[np.int32],
) -> Tensor | None:
    """What a view cuts out of images of any sizes (heights and widths in pixels), where its recipe begins so.

    int64 Bx4: top, left, height, width of the boxes of a first step `random_resized_crop`; none for recipes
    that begin with another step. For images of the size that `draw` was told, they are its boxes.
    """
    if not recipe or not isinstance(recipe[0], RandomResizedCropStep):
        return None
    uniforms = Uniforms.of(_key(recipe, seed=seed, view=view), sample_ids)
    height_B, width_B = sides_B2.astype(np.int64).T
    return torch.from_numpy(boxes(recipe[0], uniforms, height_B, width_B))


def _key(recipe: Recipe, *, seed: int, view: int) -> int:
    """The key of a view's draws, which the quarter turns at the end of its recipe are no part of."""
    while recipe and isinstance(recipe[-1], QuarterTurnStep):
        recipe = recipe[:-1]
    return view_key(recipe, seed=seed, view=view)


@dataclass(frozen=True)
class _Steps:
    """The steps of one view, and what they draw from."""

    recipe: Recipe
    key: int
    frame: Frame
    population: NDArray[np.int64] | None

    def draw(self, ids_B: NDArray[np.int64], count: int) -> ViewParams:
        """The first `count` steps for these samples; partners go through those before the mixing step."""
        uniforms = Uniforms.of(self.key, ids_B)
        parts = tuple(self._part(place, uniforms.at_step(place), ids_B) for place in range(count))
        return ViewParams(torch.from_numpy(ids_B), (self.frame.height, self.frame.width), parts)

    def _part(self, place: int, uniforms: Uniforms, ids_B: NDArray[np.int64]) -> StepParams | MixingParams:
        step = self.recipe[place]
        if step.op not in MIXING_STEPS:
            return STEPS[step.op](step, uniforms, self.frame)
        if self.population is None:
            raise ValueError(
                f"step {step.op} mixes samples; give the ids of all training samples to draw from"
            )
        row_B = partner_rows(uniforms, ids_B, self.population)
        partners = Partners(row_B, self.draw(self.population[row_B], place))
        return MIXING_STEPS[step.op](step, uniforms, self.frame, partners)
