"""The parameter table of a view: what was drawn for each sample, and nothing of the images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

# B = samples, C = channels, H = height, W = width, K = images that are mixed into one


class Frame(NamedTuple):
    """What a step may know beside its numbers."""

    height: int
    width: int
    view: int
    """Which view of the samples, counted from 0."""


@dataclass(frozen=True)
class Drawn:
    """The drawn parameters of one step; each tensor, or view, has one row per sample."""

    def take(self, rows: Tensor) -> Self:
        """The rows at these int64 places, in this order."""
        return self._each(lambda column: column.index_select(0, rows), lambda view: view.take(rows))

    def to(self, device: torch.device | str) -> Self:
        """The same numbers on another device."""
        return self._each(lambda column: column.to(device), lambda view: view.to(device))

    def _each(self, column: Callable[[Tensor], Tensor], view: Callable[[ViewParams], ViewParams]) -> Self:
        changed: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                changed[field.name] = column(value)
            elif isinstance(value, ViewParams):
                changed[field.name] = view(value)
        return replace(self, **changed)


@dataclass(frozen=True)
class StepParams(Drawn, ABC):
    """The drawn parameters of a step that looks at each image alone."""

    @abstractmethod
    def apply(self, images_BCHW: Tensor) -> Tensor:
        """The images after this step (uint8, same shape); the argument is left as it was."""


@dataclass(frozen=True)
class MixingParams(Drawn, ABC):
    """The drawn parameters of a step that mixes each image with that of a partner."""

    partner_row_B: Tensor
    """int64; the partners' places among the training samples in the order of their ids."""
    partners: ViewParams
    """The same view of the partners, up to this step."""
    share_B: Tensor
    """float32; how much of the mixed image is the sample's own."""

    @abstractmethod
    def mix(self, images_BCHW: Tensor, partners_BCHW: Tensor) -> Tensor:
        """The images after this step (uint8, same shape); the arguments are left as they were."""


@dataclass(frozen=True)
class ViewParams:
    """One view's parameters: a row per sample, a part per step of the recipe."""

    sample_ids_B: Tensor
    """int64; whose row it is."""
    size: tuple[int, int]
    """Height and width in pixels of the images that the view was drawn for."""
    parts: tuple[StepParams | MixingParams, ...]
    """In the order of the recipe; empty when the recipe is."""

    def __len__(self) -> int:
        return len(self.sample_ids_B)

    def take(self, rows: Tensor) -> ViewParams:
        """The view of some samples: the rows at these int64 places, in this order."""
        ids_B = self.sample_ids_B.index_select(0, rows)
        return ViewParams(ids_B, self.size, tuple(part.take(rows) for part in self.parts))

    def without_first(self) -> ViewParams:
        """The view without its first step, of the samples and of their partners."""
        return ViewParams(self.sample_ids_B, self.size, tuple(_after_first(part) for part in self.parts[1:]))

    def sources(self, rows_B: Tensor) -> tuple[Tensor, Tensor]:
        """Of which training samples each image is made: places BxK and float32 shares BxK, its own first.

        `rows_B` are the samples' own places among the training samples. K is 1 without a mixing step, and
        each such step doubles it. A row of shares sums to 1.
        """
        rows_BK = rows_B[:, None]
        shares_BK = torch.ones_like(rows_BK, dtype=torch.float32)
        for part in self.parts:
            if isinstance(part, MixingParams):
                other_rows_BK, other_shares_BK = part.partners.sources(part.partner_row_B)
                own_B1 = part.share_B[:, None]
                rows_BK = torch.cat([rows_BK, other_rows_BK], dim=1)
                shares_BK = torch.cat([shares_BK * own_B1, other_shares_BK * (1.0 - own_B1)], dim=1)
        return rows_BK, shares_BK

    def to(self, device: torch.device | str) -> ViewParams:
        """The same view on another device."""
        return ViewParams(
            self.sample_ids_B.to(device), self.size, tuple(part.to(device) for part in self.parts)
        )


def _after_first(part: StepParams | MixingParams) -> StepParams | MixingParams:
    return replace(part, partners=part.partners.without_first()) if isinstance(part, MixingParams) else part
