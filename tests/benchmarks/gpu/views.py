"""How fast a GPU renders views."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import torch

from tests.benchmarks.figures import Figure
from tests.benchmarks.gpu.timed_steps import CROP, SIDE, calls_s, place, scale
from tests.gpu.tried import tried_device
from trainables.config import RandAugmentStep, Recipe
from trainables.training.loaded.shown_images import RENDER_CHUNK
from trainables.views.draw import draw
from trainables.views.params import ViewParams
from trainables.views.render import render

RECIPES: Final[Mapping[str, Recipe]] = MappingProxyType(
    {"crop_flip": (CROP,), "randaugment": (RandAugmentStep(op="randaugment"),)}
)
REPEATS: Final = 20


def render_images_per_s(name: str) -> Figure:
    """Images a second of drawing a view on the host and rendering it on the device."""
    n = min(RENDER_CHUNK, scale().n_train)
    images_NCHW = torch.randint(0, 256, (n, 3, SIDE, SIDE), dtype=torch.uint8, device=tried_device())
    ids = np.arange(n)

    def drawn() -> ViewParams:
        return draw(RECIPES[name], ids, seed=1, view=0, size=(SIDE, SIDE))

    ready = drawn().to(tried_device())
    both_s, draw_s, render_s = calls_s(
        lambda: render(images_NCHW, drawn().to(tried_device())),
        drawn,
        lambda: render(images_NCHW, ready),
        repeats=REPEATS,
    )
    how = (
        f"{n} colour images of {SIDE}x{SIDE} on the recipe {name}, drawn and rendered as a batch "
        f"({1e3 * both_s:.2f} ms; drawing alone {1e3 * draw_s:.2f} ms, rendering alone {1e3 * render_s:.2f} "
        f"ms), medians of {scale().rounds} windows of {REPEATS}; {place()}"
    )
    return Figure(n / both_s, "images/s", how)
