"""The first half of a view: what happens to each sample, drawn from its address alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from trainables.config.views import Recipe
from trainables.views.crop_flip import draw_crop_flip
from trainables.views.cutout import draw_cutout
from trainables.views.params import Part, ViewParams
from trainables.views.randaugment import draw_randaugment
from trainables.views.uniforms import Uniforms, view_key

DrawStep = Callable[[Any, Uniforms, tuple[int, int]], Part]

STEPS: Final[Mapping[str, DrawStep]] = MappingProxyType(
    {"crop_flip": draw_crop_flip, "randaugment": draw_randaugment, "cutout": draw_cutout}
)


def draw(
    recipe: Recipe, sample_ids: NDArray[np.int64], *, seed: int, view: int, size: tuple[int, int]
) -> ViewParams:
    """The parameters of one view of these samples, one row each, in the order given.

    A row is a pure function of (recipe, seed, view, sample id, size): see `uniforms.py` for the numbers
    behind it. Two recipes that differ anywhere draw independently, even in the steps that they share.

    Args:
        recipe: steps in order; an empty recipe has no part.
        sample_ids: the samples' ids (not their places in a batch); any order, repeats allowed.
        seed: the experiment's seed.
        view: which view of the samples, counted from 0.
        size: height and width of the images in pixels.

    Raises:
        ValueError: if the ids are not a one-dimensional array of whole numbers, or the size is not positive.
    """
    ids = np.asarray(sample_ids)
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"sample ids must be a 1-D array of integers, got {ids.dtype} of shape {ids.shape}")
    if min(size) < 1:
        raise ValueError(f"size is (height, width) in pixels, both at least 1; got {size}")
    ids = ids.astype(np.int64)
    uniforms = Uniforms.of(view_key(recipe, seed=seed, view=view), ids)
    parts = tuple(STEPS[step.op](step, uniforms.at_step(place), size) for place, step in enumerate(recipe))
    return ViewParams(torch.from_numpy(ids), size, parts)
