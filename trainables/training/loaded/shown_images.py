"""The images of one part of the data as views show them: rendered once and kept, or for each batch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from trainables.config import ViewsConfig
from trainables.data import ImageSplit
from trainables.tensors import to_device
from trainables.training.loaded.file_views import FileViews
from trainables.views.showing import SplitViews

RENDER_CHUNK: Final = 2048

# N = samples of the part, B = samples of it in the batch, C = channels, H, W = height and width
# K = images that are mixed into one


@dataclass
class Room:
    """What rendered views may take; the parts of a workbench share it."""

    budget_bytes: int
    free_bytes: int


class ShownImages:
    """The training split's images, or the unlabelled ones, by row of their part.

    Rendered views (uint8) are kept as long as they fit into the room, since every trial of a search trains on
    the same views; beyond that a batch is rendered when it is needed. Images that are larger than that room
    themselves stay in the host's memory when the device is a GPU. Images that lie in files stay there: their
    views are decoded and rendered for each batch.
    """

    def __init__(
        self, split: ImageSplit, views: ViewsConfig, *, view_seed: int, device: torch.device, room: Room
    ) -> None:
        """Put the images on the device; views follow when they are first asked for."""
        self._device, self._room, self._count = device, room, len(split.ids)
        brought = _brought_to(device, split, room.budget_bytes)
        self._split_views = SplitViews(brought, views, view_seed, device)
        self._files = FileViews(self._split_views) if split.files is not None else None
        self._rendered: dict[tuple[str, int], Tensor] = {}

    @property
    def held_bytes(self) -> int:
        """What is held in memory: images and rendered views."""
        images = 0 if self._files is not None else self._split_views.split.images.nbytes
        return images + sum(view_NCHW.nbytes for view_NCHW in self._rendered.values())

    def is_kept(self, bank: str, view: int) -> bool:
        """Whether a whole view is rendered and kept."""
        return (bank, view) in self._rendered

    def images(self, bank: str, view: int, rows_B: Tensor) -> Tensor:
        """uint8 BxCxHxW on the device."""
        if self._files is not None:
            return self._files.images(bank, view, rows_B)
        rendered = self._rendered_view(bank, view)
        if rendered is None:
            return self._split_views.viewer(bank, view).images(rows_B)
        return rendered[to_device(rows_B, self._device)]

    def expect(self, planes: Iterable[tuple[str, int]], rows_B: Tensor) -> None:
        """Say which rows (on the CPU) are asked for next: images that lie in files are decoded meanwhile."""
        if self._files is not None and len(rows_B):
            self._files.expect(planes, rows_B)

    def sources(self, bank: str, view: int, rows_B: Tensor) -> tuple[Tensor, Tensor]:
        """Of which rows each image is made: int64 BxK and fp32 shares BxK, on the device."""
        return self._split_views.viewer(bank, view).sources(rows_B)

    def _rendered_view(self, bank: str, view: int) -> Tensor | None:
        rendered = self._rendered.get((bank, view))
        size = self._split_views.split.images.nbytes  # a view has as many bytes as the images
        if rendered is not None or size > self._room.free_bytes:
            return rendered
        viewer = self._split_views.viewer(bank, view)
        chunks = torch.split(torch.arange(self._count), RENDER_CHUNK)
        rendered = torch.cat([viewer.images(rows) for rows in chunks])
        self._rendered[bank, view] = rendered
        self._room.free_bytes -= size
        return rendered


def _brought_to(device: torch.device, split: ImageSplit, budget_bytes: int) -> ImageSplit:
    """The split with its images on the device where they fit into the budget there; files stay files."""
    images = split.images
    if not isinstance(images, Tensor) or (device.type != "cpu" and images.nbytes > budget_bytes):
        return split
    return replace(split, images=images.to(device))
