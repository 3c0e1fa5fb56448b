"""What drawing and rendering a view costs, batched, over torchvision's transforms, image by image."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from tests.benchmarks.figures import Bound, Figure
from tests.benchmarks.surroundings import surroundings
from trainables.config import CropFlipStep, RandAugmentStep, Recipe
from trainables.views.draw import draw
from trainables.views.render import render

# N = images, C = channels, H = height, W = width

CROP_FLIP: Final = Bound(20, at_least=True)
RANDAUGMENT: Final = Bound(3, at_least=True)
N: Final = 512
SIDE: Final = 32
PADDING: Final = 4
OPERATIONS: Final = 2
VIEWS: Final = 8
"""Views that are rendered one after the other, as a worker does; torchvision's one takes longer than all."""


def render_crop_flip_speedup(rounds: int = 15) -> Figure:
    """Time of crop and flip image by image with torchvision, over that of one batch."""
    steps = [v2.RandomCrop(SIDE, padding=PADDING), v2.RandomHorizontalFlip()]
    recipe: Recipe = (CropFlipStep(op="crop_flip", padding=PADDING),)
    return _speedup(recipe, v2.Compose(steps), "RandomCrop and RandomHorizontalFlip", rounds, CROP_FLIP)


def render_randaugment_speedup(rounds: int = 15) -> Figure:
    """Time of RandAugment image by image with torchvision, over that of one batch."""
    recipe: Recipe = (RandAugmentStep(op="randaugment", operations=OPERATIONS),)
    theirs = v2.RandAugment(num_ops=OPERATIONS)
    return _speedup(recipe, theirs, f"RandAugment, {OPERATIONS} operations an image", rounds, RANDAUGMENT)


def _speedup(
    recipe: Recipe, theirs: Callable[[Tensor], Tensor], what: str, rounds: int, bound: Bound
) -> Figure:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images_NCHW = torch.randint(0, 256, (N, 3, SIDE, SIDE), dtype=torch.uint8)

    def batched(number: int) -> None:
        for view in range(number * VIEWS, (number + 1) * VIEWS):
            render(images_NCHW, draw(recipe, np.arange(N), seed=1, view=view, size=(SIDE, SIDE)))

    def one_by_one(_number: int) -> None:
        torch.stack([theirs(image_CHW) for image_CHW in images_NCHW])

    view_ms: dict[str, list[float]] = {"batched": [], "one by one": []}
    turns = (("batched", batched, VIEWS), ("one by one", one_by_one, 1))
    for number in range(rounds + 1):
        for name, turn, views in turns[:: 1 if number % 2 else -1]:
            began = time.perf_counter()
            turn(number)
            if number > 0:  # the first round also fills the allocator's pools
                view_ms[name].append(1000 * (time.perf_counter() - began) / views)
    # Neighbours in time are compared: the machine may be twice as fast in one round as in another.
    ratios = [slow / fast for fast, slow in zip(*view_ms.values(), strict=True)]
    ours_ms, theirs_ms = (statistics.median(times) for times in view_ms.values())
    how = (
        f"median of the ratios of {rounds} rounds in one process with 1 thread, a view of {N} colour images "
        f"of {SIDE}x{SIDE} by torchvision.transforms.v2 ({what}), image by image and stacked "
        f"({theirs_ms:.1f} ms), over one drawn and rendered as a batch ({ours_ms:.2f} ms, of {VIEWS}); "
        f"{surroundings('torch', 'torchvision')}"
    )
    return Figure(statistics.median(ratios), "x", how, bound)
