"""How far a course is: its epochs so far, and which of them is the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from trainables.config import TrainingConfig
from trainables.config.metrics import RankBy, improves
from trainables.errors import TrialFailed
from trainables.training.course import TrainingResult
from trainables.training.progress.checkpoints import TrainingState


@dataclass
class Standing:
    """The epochs of a course; alone or in a pack, a course is judged by these rules."""

    rank_by: RankBy
    """The figure by which the best epoch is chosen."""
    keeps_last: bool = False
    """Whether the last epoch counts as the best."""
    epoch: int = 0
    """Of the last one that is over; 0 before the first."""
    best_epoch: int = 0
    best: dict[str, float] = field(default_factory=dict)
    best_model: dict[str, Tensor] = field(default_factory=dict)
    """Weights and statistics of the best epoch, in memory of their own."""
    history: list[dict[str, float]] = field(default_factory=list)
    """Metrics of every epoch."""

    def judge(
        self, epoch: int, metrics: dict[str, float], weights: Callable[[], Mapping[str, Tensor]]
    ) -> None:
        """Keep weights and metrics of an epoch that is the best so far."""
        if improves(metrics.get(self.rank_by.metric), self.best.get(self.rank_by.metric)) or self.keeps_last:
            self.best_epoch, self.best = epoch, dict(metrics)
            self.best_model = {name: value.detach().clone() for name, value in weights().items()}

    def end_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        """Count an epoch that is over."""
        self.epoch = epoch
        self.history.append(metrics)

    def state(self) -> dict[str, Any]:
        """Its parts of a `TrainingState`."""
        return {
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best_metrics": self.best,
            "best_model": self.best_model,
            "history": self.history,
        }

    def restore(self, state: TrainingState) -> None:
        """Go on from a state."""
        self.epoch, self.history = state.epoch, state.history
        self.best_epoch, self.best, self.best_model = state.best_epoch, state.best_metrics, state.best_model

    def result(self, *, stopped: bool) -> TrainingResult:
        """How the course ended."""
        return TrainingResult(self.epoch, stopped, self.best_epoch, self.best)


def refuse_non_finite(metrics: Mapping[str, float], epoch: int) -> None:
    """Fail a trial whose figures are not finite.

    Raises:
        TrialFailed: it names the first of them.
    """
    # The loss comes first in the metrics, so that it is the one named when it is not finite itself.
    for name, value in metrics.items():
        if not math.isfinite(value):
            name = "the loss" if name == "train/loss" else name
            raise TrialFailed(f"{name} is {value} in epoch {epoch}; a lower lr or weight may help")


def is_due(epoch: int, training: TrainingConfig) -> bool:
    """Whether the state of an epoch is to be kept."""
    return epoch % training.checkpoint_every == 0 and epoch < training.epochs
