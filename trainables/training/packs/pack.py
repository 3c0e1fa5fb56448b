"""A pack: the loop over epochs and steps of several students that are computed as one."""

# L = lanes, B = samples in the batch, P = numbers in the parameters of one network, S = steps of an epoch

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from trainables.config.metrics import LANES
from trainables.errors import TrialFailed
from trainables.training.course import TrainingResult
from trainables.training.learners.learner import Learner
from trainables.training.packs.judging import Judged, judge_lanes
from trainables.training.packs.lane import Lane, Ticket
from trainables.training.packs.networks import Form
from trainables.training.packs.step import LaneStep
from trainables.training.progress.checkpoints import TrainingState
from trainables.training.progress.standing import is_due, refuse_non_finite
from trainables.training.ranks import SOLO
from trainables.training.workbench import Workbench


class DoesNotFit(TrialFailed):
    """A course that cannot join this pack, and is trained alone."""


class Pack:
    """Students of one shape in lanes: courses join between two epochs, and leave when they end.

    All lanes of a pack have what `slots.packed.packing` calls alike; that is not looked at again here.
    What one lane does, or fails at, changes nothing in another one but the last bits of its sums.
    """

    def __init__(self, ticket: Ticket, workbench: Workbench, form: Form) -> None:
        """No lane yet; the ticket is that of one of the courses that will come.

        Raises:
            TrialFailed: the network has parts that lanes cannot have.
        """
        course = ticket.course
        self._workbench, self._recipe = workbench, course.training
        self._precision = course.resolved_precision()
        self._step = LaneStep(course, workbench, form)
        self.lanes: list[Lane] = []

    def admit(self, ticket: Ticket) -> None:
        """Give a course a lane from the next epoch on; it goes on from its state where its files hold one.

        Raises:
            DoesNotFit: its training began alone, or in another precision.
            CheckpointError: its state cannot be read.
        """
        state = ticket.files.load_state() if ticket.files else None
        if state is not None and not (state.packed and state.precision == self._precision.value):
            raise DoesNotFit(f"its first {state.epoch} epochs were not trained in a pack like this one")
        # As a course alone begins: on the device, with its optimiser and its running mean.
        learner = Learner(
            ticket.course.student, ticket.course.objective, ticket.course.training, self._workbench, SOLO
        )
        learner.optimise(torch.nn.Module())
        if state is not None:
            learner.restore(vars(state))
        parameters = list(learner.model.parameters())
        self._step.weights.append(learner.model)
        self._step.optimisers.append(ticket.course.training)
        if state is not None:
            self._step.optimisers.restore(len(self.lanes), state.optimizer, parameters)
        if self._step.averages is not None:
            decay, steps = ticket.course.training.ema or 0.0, state.average_steps if state else 0
            self._step.averages.append(learner.judged, decay, steps)
        self._step.changes_lanes()
        lane = Lane(ticket, state)
        self.lanes.append(lane)
        lane.tell_again()

    def train_epoch(self) -> None:
        """Train the next epoch of every lane; those whose courses end, fail or are stopped in it leave.

        Raises:
            Exception: whatever makes the step impossible for all; the lanes stay as they were when the epoch
                began only in their files.
        """
        began, lanes = time.perf_counter(), len(self.lanes)
        for lane in self.lanes:
            lane.begin(self._workbench)
        for step in range(self._step.begin(self.lanes)):
            self._drop([n for n, lane in enumerate(self.lanes) if lane.ticket.should_stop()], _stopped)
            if not self.lanes:
                return
            self._step.make(step)
        self._end_epoch(began, lanes)

    def steps(self) -> Callable[[], None]:
        """Makes a step of the next epoch at each call, round and round: to be timed, not to be kept."""
        for lane in self.lanes:
            lane.begin(self._workbench)
        numbers = itertools.cycle(range(self._step.begin(self.lanes)))
        return lambda: self._step.make(next(numbers))

    def _end_epoch(self, began: float, lanes: int) -> None:
        means = self._step.means.result()
        train_s = time.perf_counter() - began
        judged = judge_lanes(
            self._ask, self._workbench, lanes=len(self.lanes), batch_size=self._recipe.eval_batch_size
        )
        seconds = time.perf_counter() - began
        ended: dict[int, TrainingResult | Exception] = {}
        for number, lane in enumerate(self.lanes):
            metrics = dict(means[number])
            try:
                refuse_non_finite(metrics, lane.epoch)
                metrics["train/images_per_s"] = lane.rows_SB.numel() / train_s
                metrics |= {**lane.told(), LANES: float(lanes), **_selected(judged[number])}
                if self._over(number, lane, metrics, seconds):
                    ended[number] = lane.standing.result(stopped=False)
            except Exception as error:  # noqa: BLE001  of this lane alone: the others go on
                ended[number] = error
        self._drop(list(ended), lambda number, _: ended[number])

    def _over(self, number: int, lane: Lane, metrics: dict[str, float], seconds: float) -> bool:
        """Count a lane's epoch, tell of it and keep it; whether it was the last one."""
        epoch, ticket, training = lane.epoch, lane.ticket, lane.course.training
        lane.standing.judge(epoch, metrics, lambda: self._judged_state(number))
        metrics["seconds"] = seconds
        lane.standing.end_epoch(epoch, metrics)
        ticket.on_epoch(epoch, metrics)
        if ticket.files is not None and is_due(epoch, training):
            ticket.files.save_state(self._state(number))
        if epoch < training.epochs:
            return False
        lane.course.model.load_state_dict(lane.standing.best_model)
        return True

    def _ask(self, images_BCHW: Tensor) -> Tensor:
        """Logits, in evaluation mode, of the weights by which students are judged."""
        step = self._step
        weights = step.weights if step.averages is None else step.averages.means
        return step.networks(weights, images_BCHW, values_LP=weights.values_LP.detach(), training=False)

    def _judged_state(self, number: int) -> dict[str, Tensor]:
        return (self._step.averages or self._step.weights).state_dict(number)

    def _state(self, number: int) -> TrainingState:
        lane, weights, averages = self.lanes[number], self._step.weights, self._step.averages
        own = {name: value.clone() for name, value in weights.state_dict(number).items()}
        average = {} if averages is None else averages.state_dict(number)
        parameters = weights.by_parameter(weights.values_LP.detach()[number])
        return TrainingState(
            **lane.standing.state(),
            model=own,
            optimizer=self._step.optimisers.state(number, [p.clone() for p in parameters]),
            packed=True,
            precision=self._precision.value,
            average={name: value.clone() for name, value in average.items()},
            average_steps=0 if averages is None else averages.steps(number),
        )

    def _drop(self, numbers: Sequence[int], end: Callable[[int, Lane], TrainingResult | Exception]) -> None:
        """Let go of lanes, and tell whoever brought them how they ended."""
        if not numbers:
            return
        gone = [(number, self.lanes[number]) for number in numbers]
        kept = [number for number in range(len(self.lanes)) if number not in numbers]
        self.lanes = [self.lanes[number] for number in kept]
        self._step.keep(kept, self.lanes)
        for number, lane in gone:
            lane.ticket.on_end(end(number, lane))


def _stopped(_: int, lane: Lane) -> TrainingResult:
    return lane.standing.result(stopped=True)


def _selected(judged: Judged) -> dict[str, float]:
    if isinstance(judged, TrialFailed):
        raise judged
    return {f"selection/{name}": value for name, value in judged.items()}


__all__ = ["DoesNotFit", "Pack", "Ticket"]
