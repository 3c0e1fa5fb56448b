"""A step of all lanes: what it reads is gathered, and the rest is a computation that can be recorded."""

# L = lanes, B = samples in the batch, P = numbers in the parameters of one network, S = steps of an epoch

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainables.training.capture.recorders import Step, recorded
from trainables.training.capture.step_batch import StepBatch
from trainables.training.course import Course
from trainables.training.packs.averages import LaneAverages
from trainables.training.packs.inputs import LaneInputs
from trainables.training.packs.lane import Lane
from trainables.training.packs.means import LaneMeans
from trainables.training.packs.networks import FORMS, Form
from trainables.training.packs.objective import LaneObjective, LaneSignals
from trainables.training.packs.optimiser import LaneOptimisers
from trainables.training.packs.weights import LaneWeights
from trainables.training.precision import autocast
from trainables.training.workbench import Workbench


class LaneStep:
    """What a step changes of all lanes, and the step itself.

    Forward passes, losses, gradients, optimisers and means are one function of tensors, which are changed in
    place and stay where they are while the lanes stay the same: so it can be recorded once and replayed. What
    is made anew for a step, images, answers, labels and rates, is copied into such tensors where there is
    something that replays.
    """

    def __init__(self, course: Course, workbench: Workbench, form: Form) -> None:
        """No lane yet; the course is one of those that will come.

        Raises:
            TrialFailed: the network has parts that lanes cannot have.
        """
        model = course.model.to(workbench.device)
        self._device, self._recipe = workbench.device, course.training
        self._precision = course.resolved_precision()
        self.networks = FORMS[form](model)
        self.weights = LaneWeights(model)
        self.optimisers = LaneOptimisers(course.training, self.weights)
        self.averages = LaneAverages(model) if course.training.ema else None
        self.means = LaneMeans()
        self._inputs = LaneInputs(course.objective, workbench)
        self._objective = LaneObjective()
        self._recorder = workbench.recorder()
        self._replay: Step | None = None
        self._is_recorded = False
        self._batch: StepBatch | None = None
        self._epochs: list[int] = []
        self._rows_SLB = self._here_SLB = torch.empty(0, 0, 0, dtype=torch.int64)
        self._rates_SL = torch.empty(0, 0)
        self._rates_L = torch.empty(0)

    def begin(self, lanes: Sequence[Lane]) -> int:
        """Begin an epoch of these lanes, each of which has begun its own; how many steps it has."""
        steps = min(len(lane.rows_SB) for lane in lanes)
        self._rows_SLB = torch.stack([lane.rows_SB[:steps] for lane in lanes], dim=1)
        self._here_SLB = self._rows_SLB.to(self._device)
        self._rates_SL = torch.stack([lane.rates_S[:steps] for lane in lanes], dim=1).to(self._device)
        self._read(lanes)
        self.means.begin(stay=self._is_recorded)
        return steps

    def changes_lanes(self) -> None:
        """Say that a lane has joined: all tensors are others."""
        self._forget()

    def keep(self, places: Sequence[int], lanes: Sequence[Lane]) -> None:
        """Leave the lanes at these places alone, in this order; `lanes` are those."""
        for rows in (self.weights, self.optimisers, self.averages, self.means):
            if rows is not None:
                rows.keep(places)
        self._forget()
        chosen = list(places)
        self._rows_SLB, self._here_SLB = self._rows_SLB[:, chosen], self._here_SLB[:, chosen]
        self._rates_SL = self._rates_SL[:, chosen]
        if lanes:
            self._read(lanes)

    def make(self, step: int) -> None:
        """Make a step of the epoch."""
        self._gather(step)
        if not self._is_recorded:
            network = self.networks.network
            self._replay = recorded(self._recorder, self._compute, self._changed, network)
            self._is_recorded = True
        if self._replay is None:
            self._compute()
        else:
            self._replay()
        self.means.count()

    def _read(self, lanes: Sequence[Lane]) -> None:
        """Take over in which epochs the lanes are, and their hyper-parameters."""
        self._epochs = [lane.epoch for lane in lanes]
        if not self._objective.hold([lane.config for lane in lanes], self._device):
            self._replay, self._is_recorded = None, False

    def _forget(self) -> None:
        """Let go of what was recorded, and of the tensors that it reads."""
        self._replay, self._is_recorded, self._batch = None, False, None
        self._rates_L = torch.empty(0)

    def _gather(self, step: int) -> None:
        """Bring what the step reads to where it reads it."""
        rows_SLB = self._here_SLB if self._inputs.are_kept(self._epochs) else self._rows_SLB
        batch = self._inputs.batch(self._epochs, rows_SLB[step])
        if step + 1 < len(self._rows_SLB):
            self._inputs.expect(self._epochs, self._rows_SLB[step + 1])
        if not self._recorder.holds:
            self._batch, self._rates_L = batch, self._rates_SL[step]
            return
        if self._batch is None or not self._batch.takes(batch):
            self._forget()
            self._batch, self._rates_L = batch.copied(), torch.empty_like(self._rates_SL[step])
        self._rates_L.copy_(self._rates_SL[step])

    def _compute(self) -> None:
        """The step itself: nothing but tensors, which stay where they are."""
        batch = self._batch
        if batch is None:
            raise RuntimeError("nothing was gathered for this step")
        # A leaf of this step alone: autograd goes on with the stream on which a leaf was first used.
        values_LP = self.weights.values_LP.detach().requires_grad_()
        with autocast(self._precision, self._device):
            student = {
                bank: self.networks(self.weights, images, values_LP=values_LP, training=True)
                for bank, images in batch.images.items()
            }
        losses = self._objective(
            LaneSignals(student, batch.teacher, batch.labels, batch.mixed, self._recipe.label_smoothing)
        )
        # Not `backward`: it would leave a gradient behind, in a tensor that each step makes anew.
        (gradient_LP,) = torch.autograd.grad(losses.total_L.sum(), values_LP)
        norms_L = self.optimisers.step(gradient_LP, self._rates_L)
        if self.averages is not None:
            self.averages.update(self.weights)
        self.means.add(losses, norms_L)

    def _changed(self) -> list[Tensor]:
        averages = self.averages.tensors if self.averages is not None else []
        weights = [self.weights.values_LP, *self.weights.buffers.values()]
        return [*weights, *self.optimisers.tensors, *averages, *self.means.tensors]
