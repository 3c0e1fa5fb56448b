"""How good the students of a pack are on the selection split, all at once."""

# L = lanes, N = samples of the split, B = samples of a batch, K = classes

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from trainables.errors import TrialFailed
from trainables.evaluation.beside_teacher import BesideTeacher
from trainables.evaluation.metrics import MAX_LOGITS, FiguresByBatch, figures_of
from trainables.training.workbench import Workbench
from trainables.views.normalise import normalise

Judged = dict[str, float] | TrialFailed
"""A lane's figures, or why it has none."""


def judge_lanes(
    ask: Callable[[Tensor], Tensor], workbench: Workbench, *, lanes: int, batch_size: int
) -> list[Judged]:
    """The figures of `Workbench.judge` for each lane; `ask` gives logits LxBxK of images BxCxHxW."""
    data, labels_N = workbench.data, workbench.data.selection.labels.to(workbench.device)
    held = MAX_LOGITS // max(len(data.classes) * lanes, 1) >= len(labels_N)
    judges = [_Judge(labels_N, workbench.compared_NC, held=held) for _ in range(lanes)]
    with torch.no_grad():
        for batch in data.selection.batches(batch_size):
            images = normalise(batch.to(workbench.device), data.mean, data.std)
            for judge, logits_BK in zip(judges, ask(images).float(), strict=True):
                judge.hear(logits_BK)
        return [judge.figures() for judge in judges]


class _Judge:
    """Hears one lane's logits, batch by batch."""

    def __init__(self, labels_N: Tensor, teacher_NK: Tensor | None, *, held: bool) -> None:
        """With `held`, all logits are held together, as they are of a lone student."""
        self._labels_N = labels_N
        self._logits: list[Tensor] = []
        self._by_batch = None if held else FiguresByBatch(labels_N)
        self._beside = None if teacher_NK is None else BesideTeacher(nn.Identity(), teacher_NK)
        self._failed: TrialFailed | None = None

    def hear(self, logits_BK: Tensor) -> None:
        """The next batch."""
        if self._beside is not None:
            self._beside.compare(logits_BK)
        if self._by_batch is None:
            self._logits.append(logits_BK)
        elif self._failed is None:
            try:
                self._by_batch.add(logits_BK)
            except TrialFailed as error:
                self._failed = error

    def figures(self) -> Judged:
        """Of all batches."""
        if self._failed is not None:
            return self._failed
        try:
            own = (
                figures_of(torch.cat(self._logits), self._labels_N)
                if self._by_batch is None
                else self._by_batch.result()
            )
        except TrialFailed as error:
            return error
        return own if self._beside is None else own | self._beside.figures()
