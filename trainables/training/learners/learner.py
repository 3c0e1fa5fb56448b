"""One network of a course while it is trained: student or peer, with its optimiser and its running mean."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn

from trainables.config import ObjectiveBase, TrainingConfig, TrainingPrecision
from trainables.models.features import FeatureTap, Tapped
from trainables.tensors import memory_format
from trainables.training.course import Trained
from trainables.training.learners.answers import Asked
from trainables.training.learners.ema import WeightAverage
from trainables.training.learners.fine_tuning import hold_frozen
from trainables.training.optimisers import (
    build_optimizer,
    clip_gradients,
    restore_optimizer,
    set_learning_rate,
)
from trainables.training.ranks import Forward, Team, settle
from trainables.training.step_inputs import needs_plain_forward, student_tap
from trainables.training.workbench import Workbench

STATE: Final = ("model", "optimizer", "precision", "average", "average_steps")
"""The parts of a learner's state."""


class Learner:
    """A network and all that trains it; several of them learn together where networks teach each other."""

    def __init__(
        self,
        trained: Trained,
        objective: ObjectiveBase,
        training: TrainingConfig,
        workbench: Workbench,
        team: Team,
    ) -> None:
        """Put the network on the workbench's device; `training` is its recipe.

        Raises:
            TrialFailed: the network has no feature that the objective asks for.
            ConfigError: the recipe holds parts that it does not have.
        """
        self._training, self._team, self._workbench = training, team, workbench
        layout = memory_format(trained.model)
        self.model: nn.Module = trained.model.to(workbench.device, memory_format=layout)  # type: ignore[call-overload]
        # Before copies of it are made and ranks share it: both look at what is to be trained.
        self._tuning = hold_frozen(self.model, training, len(workbench.data.classes))
        decay = training.ema
        self._average = WeightAverage(self.model, decay) if decay else None
        self.tap, forward = self._tapped(trained, objective)
        self._forward = team.wrap(self.model, forward)
        self._layout = layout
        self.precision = trained.resolved_precision(training)
        self.optimizer: torch.optim.Optimizer

    def _tapped(self, trained: Trained, objective: ObjectiveBase) -> tuple[FeatureTap | None, Forward]:
        """What reads features off the network, and its forward pass in training, which gives them too."""
        bench = self._workbench
        forward = None if needs_plain_forward(objective) else trained.forward
        if forward is not None:
            return trained.tap, forward
        tap = student_tap(objective, self.model, bench.data, bench.device, trained.stated)
        return tap, self.model if tap is None else Tapped(self.model, tap)

    def optimise(self, others: nn.Module, *, held: bool = False) -> None:
        """Make the optimiser, of the network's parameters and of those of `others`.

        With `held`, numbers that change from step to step lie in tensors: `clear` and `step` can be replayed.
        """
        groups = self._tuning.groups(self.model, others)
        self.optimizer = build_optimizer(groups, self._training, held=held)
        if held and self._average is not None:
            self._average.hold(self._workbench.device)

    @property
    def asked(self) -> Asked:
        """The network as a step asks it."""
        return Asked(self._forward, self._layout, self.precision, self.tap)

    @property
    def judged(self) -> nn.Module:
        """What is evaluated and kept: the running mean of the weights where the recipe has one."""
        return self._average.model if self._average else self.model

    def train(self) -> None:
        """Put the network into training mode, and what is held of it into evaluation mode."""
        self._tuning.train(self.model)

    def begin(self, rate: float) -> None:
        """Begin a step at this learning rate: no gradient is left of the one before."""
        self.prepare(rate)
        self.clear()

    def prepare(self, rate: float) -> None:
        """Say the numbers of the next step: its rate, and how much of it the running mean takes in."""
        set_learning_rate(self.optimizer, rate)
        if self._average is not None:
            self._average.count()

    def clear(self) -> None:
        """Leave no gradient of the step before."""
        self.optimizer.zero_grad(set_to_none=True)

    @property
    def changed(self) -> list[Tensor]:
        """The tensors that a step changes, as far as they exist."""
        models = [self.model, *([self._average.model] if self._average else [])]
        own = [value for model in models for value in (*model.parameters(), *model.buffers())]
        gathered = [value for state in self.optimizer.state.values() for value in state.values()]
        return [*own, *(value for value in gathered if isinstance(value, Tensor))]

    def step(self) -> Tensor | None:
        """Make a step along the gradient; gives the norm that it had where the recipe clips it."""
        limit = self._training.clip_norm
        norm = clip_gradients(self.optimizer, limit) if limit is not None else None
        self.optimizer.step()
        if self._average is not None:
            self._average.update(self.model)
        return norm

    def settle(self) -> None:
        """Make common to the ranks what each of them has kept of its own shares."""
        settle(self.model, self._team)
        if self._average is not None:
            settle(self._average.model, self._team)

    def state(self) -> dict[str, Any]:
        """What the next epoch depends on, by the names of `STATE`."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.precision.value,
            "average": self._average.state() if self._average else {},
            "average_steps": self._average.steps if self._average else 0,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.model.load_state_dict(state["model"])
        if self._average is not None:  # a trial may fork off from one that kept no mean
            self._average.restore(state["average"] or state["model"], state["average_steps"])
        restore_optimizer(self.optimizer, state["optimizer"])
        self.precision = TrainingPrecision(state["precision"])
