"""What the lanes see and hear in a step, gathered for all of them in as few reads as they look at views."""

# L = lanes, B = samples in the batch, C = channels of an image, H, W = height and width

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from trainables.config import Need, ObjectiveBase
from trainables.signals import Mixing, TeacherSignal
from trainables.training.capture.step_batch import StepBatch
from trainables.training.workbench import Workbench

_MOST_PLACES: Final = 256
"""So many tensors of numbers of lanes are kept: lanes in different epochs part in ever other ways."""


class LaneInputs:
    """Gathers the batches of lanes, which may be in different epochs, and so look at different views."""

    def __init__(self, config: ObjectiveBase, workbench: Workbench) -> None:
        """`config` says which banks are seen and heard, which is the same for all lanes."""
        self._banks, self._heard = config.banks, config.teacher_banks
        self._unshifted = Need.UNSHIFTED in config.needed
        self._workbench = workbench
        self._places: dict[tuple[tuple[int, ...], torch.device], Tensor] = {}

    def are_kept(self, epochs: Sequence[int]) -> bool:
        """Whether all that the lanes see and hear in these epochs lies on the device, whole views of it."""
        return all(
            self._workbench.keeps(bank, epoch, seen=bank in self._banks, heard=bank in self._heard)
            for bank in {*self._banks, *self._heard}
            for epoch in set(epochs)
        )

    def batch(self, epochs: Sequence[int], rows_LB: Tensor) -> StepBatch:
        """The batch of each lane in its epoch; rows are on the CPU, or on the device where `are_kept`."""
        labels = self._workbench.labels(rows_LB.flatten()).view(rows_LB.shape)
        return StepBatch(
            images={bank: self._images(bank, epochs, rows_LB) for bank in self._banks},
            teacher={bank: self._teacher(bank, epochs, rows_LB) for bank in self._heard},
            labels=labels,
            mixed=self._mixings(epochs, rows_LB),
        )

    def expect(self, epochs: Sequence[int], rows_LB: Tensor) -> None:
        """Say which rows are asked for next; see `Workbench.expect`."""
        for bank in self._banks:
            for lanes in self._by_view(bank, epochs):
                self._workbench.expect([bank], epochs[lanes[0]], self._rows_of(lanes, rows_LB).T.flatten())

    def _by_view(self, bank: str, epochs: Sequence[int]) -> list[list[int]]:
        """The lanes that look at the same view of a bank, together."""
        groups: dict[int, list[int]] = {}
        for lane, epoch in enumerate(epochs):
            groups.setdefault(self._workbench.view_of(bank, epoch), []).append(lane)
        return list(groups.values())

    def _images(self, bank: str, epochs: Sequence[int], rows_LB: Tensor) -> Tensor:
        def read(lanes: list[int]) -> Tensor:
            # Sample by sample, and within a sample lane by lane: as channels of a wide network lie.
            rows = self._rows_of(lanes, rows_LB).T.flatten()
            images = self._workbench.images(bank, epochs[lanes[0]], rows)
            return images.view(-1, len(lanes), *images.shape[1:])

        groups = self._by_view(bank, epochs)
        return self._in_order([read(lanes) for lanes in groups], groups, dim=1)

    def _teacher(self, bank: str, epochs: Sequence[int], rows_LB: Tensor) -> TeacherSignal:
        def read(lanes: list[int]) -> TeacherSignal:
            signal = self._workbench.teacher(bank, epochs[lanes[0]], self._rows_of(lanes, rows_LB).flatten())
            signal = signal.unshifted() if self._unshifted else signal
            return signal.each(lambda part: part.view(len(lanes), -1, *part.shape[1:]))

        groups = self._by_view(bank, epochs)
        signals = [read(lanes) for lanes in groups]
        maxima = [signal.logit_max_B for signal in signals if signal.logit_max_B is not None]
        return TeacherSignal(
            self._in_order([signal.logits_BC for signal in signals], groups),
            self._in_order([signal.confidence_B for signal in signals], groups),
            logit_max_B=self._in_order(maxima, groups) if maxima else None,
        )

    def _mixings(self, epochs: Sequence[int], rows_LB: Tensor) -> dict[str, Mixing]:
        found: dict[str, Mixing] = {}
        for bank in self._banks:
            groups = self._by_view(bank, epochs)
            each = [
                self._workbench.mixing(bank, epochs[g[0]], self._rows_of(g, rows_LB).flatten())
                for g in groups
            ]
            mixings = [mixing for mixing in each if mixing is not None]
            if mixings:
                found[bank] = Mixing(
                    self._in_order(_split(mixings, groups, lambda m: m.labels_BK), groups),
                    self._in_order(_split(mixings, groups, lambda m: m.shares_BK), groups),
                )
        return found

    def _in_order(self, pieces: Sequence[Tensor], groups: Sequence[list[int]], dim: int = 0) -> Tensor:
        """Pieces of groups of lanes as one tensor, its lanes in their order along `dim`."""
        if len(pieces) == 1:
            return pieces[0]
        lanes = [lane for group in groups for lane in group]
        order = sorted(range(len(lanes)), key=lanes.__getitem__)
        return torch.cat(list(pieces), dim=dim).index_select(dim, self._placed(order, pieces[0].device))

    def _rows_of(self, lanes: list[int], rows_LB: Tensor) -> Tensor:
        """The rows of some lanes: of all of them, as they are."""
        if len(lanes) == len(rows_LB):
            return rows_LB
        return rows_LB.index_select(0, self._placed(lanes, rows_LB.device))

    def _placed(self, lanes: list[int], device: torch.device) -> Tensor:
        """The numbers as a tensor. Kept: a step that brings them to a GPU again would wait for that."""
        key = (tuple(lanes), device)
        if key not in self._places:
            if len(self._places) >= _MOST_PLACES:
                self._places.clear()
            self._places[key] = torch.tensor(lanes, device=device)
        return self._places[key]


def _split(
    mixings: Sequence[Mixing], groups: Sequence[list[int]], part: Callable[[Mixing], Tensor]
) -> list[Tensor]:
    parts = [part(one) for one in mixings]
    return [one.view(len(lanes), -1, one.shape[-1]) for one, lanes in zip(parts, groups, strict=True)]
