"""What a recipe makes of samples of the training split: drawn, then rendered, partners included."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.config.views import Recipe
from trainables.data import ImageSplit
from trainables.views.draw import draw
from trainables.views.render import render

# B = samples, C = channels, H = height, W = width


def show(
    split: ImageSplit, rows_B: Tensor, recipe: Recipe, *, seed: int, view: int, device: torch.device
) -> Tensor:
    """uint8 BxCxHxW on the device: one view of these rows (int64, on the CPU) of the split.

    `seed` is that of the views. Partners come from the split too, which is therefore the training split.

    Raises:
        DataError: images, or a size, that the recipe cannot be applied to.
    """

    def originals(places_B: Tensor) -> Tensor:
        return split.images[places_B.cpu()].to(device)

    height, width = (int(side) for side in split.images.shape[2:])
    ids_N = split.ids.numpy()
    params = draw(recipe, ids_N[rows_B.numpy()], seed=seed, view=view, size=(height, width), population=ids_N)
    return render(originals(rows_B), params.to(device), originals)
