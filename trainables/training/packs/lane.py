"""A lane: one student of a pack, whom it reports to, and how far it is."""

# B = samples in the batch, S = steps of an epoch

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainables.config import ObjectiveBase
from trainables.training.batches import epoch_batches
from trainables.training.course import Course, TrainingResult
from trainables.training.loop import OnEpoch, ShouldStop
from trainables.training.optimisers import learning_rate
from trainables.training.progress.checkpoints import CheckpointFolder, TrainingState
from trainables.training.progress.standing import Standing
from trainables.training.workbench import Workbench


@dataclass
class Ticket:
    """A course that is to be trained in a pack, as `loop.train` is asked for one."""

    course: Course
    on_epoch: OnEpoch
    should_stop: ShouldStop = lambda: False
    files: CheckpointFolder | None = None
    heard: int | None = None
    on_end: Callable[[TrainingResult | Exception], None] = field(default=lambda _: None)
    """Called once: with how the course ended, or with why it failed."""


class Lane:
    """A course in a pack: between two epochs it may join and leave."""

    def __init__(self, ticket: Ticket, state: TrainingState | None) -> None:
        """It goes on from the state, if there is one; the network's weights are not looked at here."""
        self.ticket, self.course = ticket, ticket.course
        self.standing = Standing(self.course.rank_by, self.course.keeps_last)
        if state is not None:
            self.standing.restore(state)
        self.rows_SB: Tensor
        self.rates_S: Tensor
        self.config: ObjectiveBase
        """The objective's hyper-parameters in this epoch."""

    @property
    def epoch(self) -> int:
        """The epoch that is being trained."""
        return self.standing.epoch + 1

    def tell_again(self) -> None:
        """Tell what the state has beyond what the listener knows."""
        first = self.standing.epoch if self.ticket.heard is None else self.ticket.heard
        for epoch, metrics in enumerate(self.standing.history[first:], first + 1):
            self.ticket.on_epoch(epoch, metrics)

    def begin(self, workbench: Workbench) -> None:
        """Prepare the next epoch: batches, rates and hyper-parameters, as a course alone has them."""
        training, epoch = self.course.training, self.epoch
        batches = epoch_batches(
            workbench.data, training, seed=self.course.seed, epoch=epoch, unlabelled=False
        )
        self.rows_SB = torch.stack([batch.rows_B for batch in batches])
        steps = len(batches)
        self.rates_S = torch.tensor(
            [learning_rate(training, epoch - 1 + step / steps) for step in range(steps)]
        )
        self.config = self.course.objective.at(epoch, training.epochs)

    def told(self) -> dict[str, float]:
        """What is known of this epoch without its steps; see `loop`."""
        varying = self.course.objective.varying(self.epoch, self.course.training.epochs)
        return {**self.course.costs, **{f"train/{name}": value for name, value in varying.items()}}
