"""The parameter table of a view: what was drawn for each sample, and nothing of the images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

# B = samples, C = channels, H = height, W = width


@dataclass(frozen=True)
class Part(ABC):
    """The drawn parameters of one step; each tensor field has one row per sample."""

    def take(self, rows: Tensor) -> Self:
        """The rows at these int64 places, in this order."""
        return self._each(lambda column: column.index_select(0, rows))

    def to(self, device: torch.device | str) -> Self:
        """The same numbers on another device."""
        return self._each(lambda column: column.to(device))

    @abstractmethod
    def apply(self, images_BCHW: Tensor) -> Tensor:
        """The images after this step (uint8, same shape); the argument is left as it was."""

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {
            name: change(value) for name, value in values.items() if isinstance(value, Tensor)
        }
        return replace(self, **changed)


@dataclass(frozen=True)
class ViewParams:
    """One view's parameters: a row per sample, a part per step of the recipe."""

    sample_ids_B: Tensor
    """int64; whose row it is."""
    size: tuple[int, int]
    """Height and width in pixels of the images that the view was drawn for."""
    parts: tuple[Part, ...]
    """In the order of the recipe; empty when the recipe is."""

    def __len__(self) -> int:
        return len(self.sample_ids_B)

    def take(self, rows: Tensor) -> ViewParams:
        """The view of some samples: the rows at these int64 places, in this order."""
        ids_B = self.sample_ids_B.index_select(0, rows)
        return ViewParams(ids_B, self.size, tuple(part.take(rows) for part in self.parts))

    def to(self, device: torch.device | str) -> ViewParams:
        """The same view on another device."""
        return ViewParams(
            self.sample_ids_B.to(device), self.size, tuple(part.to(device) for part in self.parts)
        )
