"""What a recipe makes of samples of the training split: drawn, then rendered, partners included."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.config.views import Recipe
from trainables.data import ImageSplit
from trainables.tensors import to_device
from trainables.views.draw import draw, draw_boxes
from trainables.views.params import ViewParams
from trainables.views.render import render

# B = samples, C = channels, H = height, W = width


def show(
    split: ImageSplit, rows_B: Tensor, recipe: Recipe, *, seed: int, view: int, device: torch.device
) -> Tensor:
    """uint8 BxCxHxW on the device: one view of these rows (int64, on the CPU) of the split.

    `seed` is that of the views. Partners come from the split too, which is therefore the training split.

    Raises:
        DataError: images, or a size, that the recipe cannot be applied to, or files that cannot be decoded.
    """
    return Viewer(split, recipe, seed, view, device).images(rows_B)


@dataclass(frozen=True)
class Viewer:
    """One view of the samples of a training split.

    A recipe that begins with a random-resized crop cuts its boxes out of the images as the split has them.
    Where these lie in files, that is at their own sizes, before they are brought to the data set's.
    """

    split: ImageSplit
    recipe: Recipe
    seed: int
    view: int
    device: torch.device

    def images(self, rows_B: Tensor) -> Tensor:
        """uint8 BxCxHxW on the device: these rows (int64, on the CPU) as the view shows them."""
        return render(self._originals(rows_B), self.params(rows_B).to(self.device), self._originals)

    def params(self, rows_B: Tensor) -> ViewParams:
        """What the view does to these rows, on the CPU, apart from boxes that are cut out of files."""
        height, width = (int(side) for side in self.split.images.shape[2:])
        ids_N = self.split.ids.numpy()
        params = draw(
            self.recipe,
            ids_N[rows_B.numpy()],
            seed=self.seed,
            view=self.view,
            size=(height, width),
            population=ids_N,
        )
        return params if self._boxes(rows_B[:0]) is None else params.without_first()

    def _originals(self, places_B: Tensor) -> Tensor:
        """On the device: what the steps of `params` begin with."""
        places_B = places_B.cpu()
        box_B4 = self._boxes(places_B)
        if self.split.files is None or box_B4 is None:
            return to_device(self.split.images[places_B], self.device)
        return to_device(self.split.files.cut(places_B, box_B4), self.device)

    def _boxes(self, places_B: Tensor) -> Tensor | None:
        """int64 Bx4, what is cut out of the files of these samples; none where nothing is."""
        if self.split.files is None:
            return None
        places = places_B.numpy()
        return draw_boxes(
            self.recipe,
            self.split.ids.numpy()[places],
            seed=self.seed,
            view=self.view,
            sides_B2=self.split.files.sides(places),
        )
