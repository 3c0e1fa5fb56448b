"""How good the students of a pack are on the selection split, all at once."""

# L = lanes, N = samples of the split, K = classes

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trainables.errors import TrialFailed
from trainables.evaluation.metrics import MAX_LOGITS
from trainables.training.workbench import Workbench
from trainables.views.normalise import normalise

Judged = dict[str, float] | TrialFailed
"""A lane's figures, or why it has none."""


def judge_lanes(ask: Callable[[Tensor], Tensor], workbench: Workbench, *, batch_size: int) -> list[Judged]:
    """The figures of `Workbench.judge` for each lane; `ask` gives logits LxBxK of images BxCxHxW."""
    data, held = workbench.data, list[Tensor]()
    with torch.no_grad():
        for batch in data.selection.batches(batch_size):
            held.append(ask(normalise(batch.to(workbench.device), data.mean, data.std)).float())
        logits_LNK = torch.cat(held, dim=1)
    return [_judged(workbench, logits_NK) for logits_NK in logits_LNK]


def fits_in_memory(lanes: int, samples: int, classes: int) -> bool:
    """Whether the answers of so many lanes to a split may be held together."""
    return lanes * samples * classes <= MAX_LOGITS


def _judged(workbench: Workbench, logits_NK: Tensor) -> Judged:
    try:
        return workbench.figures(logits_NK)
    except TrialFailed as error:
        return error
