"""The step of a course that is trained alone, recorded once and then replayed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from trainables.config import ObjectiveBase
from trainables.signals import Losses, Objective
from trainables.training.capture.recorders import Recorder, Step, recorded
from trainables.training.capture.step_batch import StepBatch
from trainables.training.course import Course
from trainables.training.learners.learner import Learner
from trainables.training.ranks import Share
from trainables.training.running_means import RunningMeans
from trainables.training.step_inputs import StepInputs
from trainables.training.workbench import Workbench

# B = samples in the batch, S = steps of an epoch


def can_be_recorded(course: Course, workbench: Workbench) -> bool:
    """Whether a course's steps are one function of tensors that can stay where they are.

    What the network itself does, drawing random numbers or waiting for the device, is found when it is tried.
    """
    objective, data = course.objective, workbench.data
    is_alone = course.team.size == 1 and not objective.with_peers
    is_plain = course.forward is None and not objective.keeps_state
    draws = objective.attack is not None or objective.pair_mixing is not None
    heard = all(
        workbench.said.is_cached(bank, objective.teacher_features) for bank in objective.teacher_banks
    )
    return is_alone and is_plain and not draws and heard and data.unlabelled is None


def placed(config: ObjectiveBase, bench: Workbench, epoch: int, shares: list[Share]) -> list[Share]:
    """An epoch's shares, their rows on the device where no step copies anything from the host then."""
    seen, heard = config.banks, config.teacher_banks
    if config.teacher_features or not all(
        bench.keeps(bank, epoch, seen=bank in seen, heard=bank in heard) for bank in {*seen, *heard}
    ):
        return shares
    rows = torch.cat([share.rows_B for share in shares]).to(bench.device)
    each = torch.split(rows, [len(share.rows_B) for share in shares])
    return [replace(share, rows_B=rows_B) for share, rows_B in zip(shares, each, strict=True)]


class LoneStep:
    """Forward pass, loss, backward pass, optimiser and means of one student, as a `Recorder` replays them.

    What is made anew for a step is copied into tensors that stay. Where the objective's hyper-parameters
    change between two epochs it is recorded anew: in a graph they are plain numbers.
    """

    def __init__(
        self,
        course: Course,
        recorder: Recorder,
        *,
        student: Learner,
        inputs: StepInputs,
        objective: Objective[Any],
    ) -> None:
        """The student's optimiser has its numbers in tensors: see `Learner.optimise`."""
        self.means = RunningMeans()
        self._course, self._recorder = course, recorder
        self._student, self._inputs, self._objective = student, inputs, objective
        self._replay: Step | None = None
        self._recorded: ObjectiveBase | None = None
        self._batch: StepBatch | None = None

    def make(self, share: Share, *, epoch: int, rate: float) -> None:
        """Make a step on a batch in an epoch, at this learning rate."""
        inputs, student, means = self._inputs, self._student, self.means
        batch = inputs.batch(epoch, share)
        if self._batch is None or not self._batch.takes(batch):
            self._batch, self._recorded = batch.copied(), None
        student.prepare(rate)
        held = self._batch

        def compute() -> None:
            losses = self._objective(inputs.signals_of(held, student.asked, epoch, share))
            student.clear()
            losses.total.backward()  # type: ignore[no-untyped-call]
            means.add(with_norm(losses, student.step()), share.part)

        now = self._course.objective.at(epoch, self._course.training.epochs)
        if self._recorded != now:
            means.renew()
            self._replay = recorded(self._recorder, compute, self._changed, student.model)
            self._recorded = now
        (self._replay or compute)()
        means.count()

    def _changed(self) -> list[Tensor]:
        return [*self._student.changed, *self.means.tensors]


def with_norm(losses: Losses, norm: Tensor | None) -> Losses:
    """The losses with the norm of the gradient among their gauges, where it is known."""
    return losses if norm is None else replace(losses, gauges={**losses.gauges, "gradient_norm": norm})
