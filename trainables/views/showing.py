"""What a recipe makes of samples of the training split: drawn, then rendered, partners included.

Teacher, proof and student all show images through this module, so that a cached answer is to the very image
that the student trains on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.config.views import Recipe, ViewsConfig
from trainables.data import ImageSplit
from trainables.data.splits import by_part
from trainables.tensors import to_device
from trainables.views.draw import draw, draw_boxes
from trainables.views.params import ViewParams
from trainables.views.render import render

# B = samples, C = channels, H = height, W = width


def show(
    split: ImageSplit, rows_B: Tensor, recipe: Recipe, *, seed: int, view: int, device: torch.device
) -> Tensor:
    """uint8 BxCxHxW on the device: one view of these rows (int64) of the split.

    `seed` is that of the views. Partners come from the split too, which is therefore the training split.

    Raises:
        DataError: images, or a size, that the recipe cannot be applied to, or files that cannot be decoded.
    """
    return Viewer(split, recipe, seed, view, device).images(rows_B)


def show_any(
    parts: Sequence[ImageSplit],
    rows_B: Tensor,
    recipe: Recipe,
    *,
    seed: int,
    view: int,
    device: torch.device,
) -> Tensor:
    """The same of rows that count through the training split and unlabelled images behind it.

    Partners are of the sample's own part: no labelled image has pixels of an unlabelled one.

    Raises:
        DataError: as for `show`.
    """
    return by_part(
        parts,
        rows_B,
        lambda part, rows: show(parts[part], rows, recipe, seed=seed, view=view, device=device),
    )


@dataclass(frozen=True)
class Viewer:
    """One view of the samples of a training split.

    A recipe that begins with a random-resized crop cuts its boxes out of the images as the split has them.
    Where these lie in files, that is at their own sizes, before they are brought to the data set's.

    The split's images may lie on the device. Rows on the CPU are best: then nothing that lies there waits for
    a GPU.
    """

    split: ImageSplit
    recipe: Recipe
    seed: int
    view: int
    device: torch.device

    def images(self, rows_B: Tensor) -> Tensor:
        """uint8 BxCxHxW on the device: these rows (int64) as the view shows them.

        Raises:
            DataError: images, or a size, that the recipe cannot be applied to, or files that cannot be
                decoded.
        """
        return render(self._originals(rows_B), self.params(rows_B).to(self.device), self._originals)

    def sources(self, rows_B: Tensor) -> tuple[Tensor, Tensor]:
        """Of which rows of the split each image is made: int64 BxK and fp32 shares BxK, on the device.

        The image's own row comes first; K is 1 for a recipe that mixes no samples.
        """
        rows_B = rows_B.cpu()
        sources_BK, shares_BK = self.params(rows_B).sources(rows_B)
        return to_device(sources_BK, self.device), to_device(shares_BK, self.device)

    def params(self, rows_B: Tensor) -> ViewParams:
        """What the view does to these rows, on the CPU, apart from boxes that are cut out of files.

        It is drawn anew each time, which costs little beside rendering: kept for all views of a large split,
        it would be larger than the images.
        """
        rows_B = rows_B.cpu()
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

    def _originals(self, rows_B: Tensor) -> Tensor:
        """On the device: what the steps of `params` begin with."""
        images = self.split.images
        if isinstance(images, Tensor):
            return to_device(images[rows_B.to(images.device)], self.device)
        rows_B = rows_B.cpu()
        box_B4 = self._boxes(rows_B)
        return to_device(images[rows_B] if box_B4 is None else images.cut(rows_B, box_B4), self.device)

    def _boxes(self, rows_B: Tensor) -> Tensor | None:
        """int64 Bx4, what is cut out of the files of these samples; none where nothing is."""
        if self.split.files is None:
            return None
        rows = rows_B.numpy()
        return draw_boxes(
            self.recipe,
            self.split.ids.numpy()[rows],
            seed=self.seed,
            view=self.view,
            sides_B2=self.split.files.sides(rows),
        )


@dataclass(frozen=True)
class SplitViews:
    """All views of the samples of a training split."""

    split: ImageSplit
    views: ViewsConfig
    seed: int
    device: torch.device

    def viewer(self, bank: str, view: int) -> Viewer:
        """One view of a bank, counted from 0."""
        return Viewer(self.split, self.views.bank(bank).recipe, self.seed, view, self.device)
