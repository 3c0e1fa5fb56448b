"""What a step reads that is not of the networks: images, answers, labels; and how it stays in one place."""

# B = samples in the batch; the batch of a pack has L lanes of everything beside it

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainables.signals import Mixing, TeacherSignal


@dataclass(frozen=True)
class StepBatch:
    """A step's batch, of one student or of every lane of a pack."""

    images: Mapping[str, Tensor]
    """By bank, normalised, BxCxHxW; of a pack BxLxCxHxW."""
    teacher: Mapping[str, TeacherSignal]
    """By bank; of a pack its tensors are LxB..."""
    labels: Tensor
    """int64, B; of a pack LxB."""
    mixed: Mapping[str, Mixing] = field(default_factory=dict)
    """By bank, of those that mix samples, BxK each; of a pack LxBxK."""
    rows: Tensor | None = None
    """int64, B, where they are asked for."""

    def tensors(self) -> list[Tensor]:
        """All of them, in an order that hangs on what there is."""
        found = [*self.images.values(), self.labels]
        for signal in self.teacher.values():
            maxima = [] if signal.logit_max_B is None else [signal.logit_max_B]
            found += [signal.logits_BC, signal.confidence_B, *maxima, *signal.features.values()]
        for mixing in self.mixed.values():
            found += [mixing.labels_BK, mixing.shares_BK]
        return found if self.rows is None else [*found, self.rows]

    def copied(self) -> StepBatch:
        """The same numbers in tensors of their own: a workbench may give views of what it keeps."""
        return StepBatch(
            {bank: images.clone() for bank, images in self.images.items()},
            {bank: signal.each(Tensor.clone) for bank, signal in self.teacher.items()},
            self.labels.clone(),
            {b: Mixing(m.labels_BK.clone(), m.shares_BK.clone()) for b, m in self.mixed.items()},
            None if self.rows is None else self.rows.clone(),
        )

    def takes(self, other: StepBatch) -> bool:
        """Take over the numbers of another batch into these very tensors; whether they fit into them."""
        own, given = self.tensors(), other.tensors()
        if [_like(value) for value in own] != [_like(value) for value in given]:
            return False
        for value, numbers in zip(own, given, strict=True):
            value.copy_(numbers)
        return True


def _like(value: Tensor) -> tuple[torch.Size, torch.dtype]:
    return value.shape, value.dtype
