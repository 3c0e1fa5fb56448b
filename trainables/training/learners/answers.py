"""What a network in training says of a step's images: logits, features, what else an objective needs."""

# B = samples in the batch, C = classes

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainables.config import TrainingPrecision
from trainables.models.features import FeatureTap
from trainables.models.features.feature_map_logits import DenseLogits
from trainables.tensors import at_least_fp32
from trainables.training.precision import autocast
from trainables.training.ranks import Forward


@dataclass(frozen=True)
class Answer:
    """What a network says of a view."""

    logits_BC: Tensor
    dense_BCHW: Tensor | None = None
    features: Mapping[str, Tensor] = field(default_factory=dict)

    def pieces(self, count: int) -> list[Answer]:
        """So many of equal size, in the order of the rows; all in fp32, whatever the network computed in."""
        logits = _cut(at_least_fp32(self.logits_BC), count)
        dense = [None] * count if self.dense_BCHW is None else _cut(self.dense_BCHW, count)
        features = {name: _cut(at_least_fp32(feature), count) for name, feature in self.features.items()}
        return [
            Answer(logits[n], dense[n], {name: cut[n] for name, cut in features.items()})
            for n in range(count)
        ]


def _cut(rows: Tensor, count: int) -> Sequence[Tensor]:
    # Not slices: the gradient of each would be a tensor of zeros in another memory layout than the map's,
    # and what precedes the map in the network would take twenty times as long with it.
    return [rows] if count == 1 else torch.split(rows, len(rows) // count)


@dataclass(frozen=True)
class Asked:
    """A network in training, as a step asks it."""

    forward: Forward
    """Gives logits, and features by name too where there is a tap."""
    layout: torch.memory_format
    precision: TrainingPrecision
    """A resolved one."""
    tap: FeatureTap | None = None

    def about(
        self, images: Mapping[str, Tensor], *, one_pass: bool, dense: DenseLogits | None = None
    ) -> dict[str, Answer]:
        """By bank: one forward pass each, or one of all together; `dense` reads its part off each pass."""
        laid = {bank: one.contiguous(memory_format=self.layout) for bank, one in images.items()}
        device = next(iter(laid.values())).device
        with autocast(self.precision, device):
            if not one_pass:
                return {bank: self._answer(one, dense).pieces(1)[0] for bank, one in laid.items()}
            together = self._answer(torch.cat(list(laid.values())), dense)
            return dict(zip(laid, together.pieces(len(laid)), strict=True))

    def _answer(self, images_BCHW: Tensor, dense: DenseLogits | None) -> Answer:
        if self.tap is not None:
            logits_BC, features = self.forward(images_BCHW)
            return Answer(logits_BC, features=features)
        if dense is not None:
            logits_BC, dense_BCHW = dense.during(lambda: self.forward(images_BCHW))
            return Answer(logits_BC, dense_BCHW=dense_BCHW)
        return Answer(self.forward(images_BCHW))
