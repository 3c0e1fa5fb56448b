"""Objectives with a state of their own: modules whose parameters are trained together with the student."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainables.errors import CheckpointError
from trainables.signals import Objective
from trainables.training.ranks import Team


def on_device(objective: Objective, device: torch.device) -> Objective:
    """The same objective, its state on that device."""
    return objective.to(device) if isinstance(objective, nn.Module) else objective


def state_of(objective: Objective) -> dict[str, Tensor]:
    """Parameters and buffers by name; empty for an objective that is a function."""
    return objective.state_dict() if isinstance(objective, nn.Module) else {}


def restore_state(objective: Objective, state: dict[str, Tensor]) -> None:
    """Bring back what `state_of` gave.

    Raises:
        CheckpointError: the state is that of another objective, or of one made for other data.
    """
    own = state_of(objective)
    found = {name: tuple(value.shape) for name, value in state.items()}
    wanted = {name: tuple(value.shape) for name, value in own.items()}
    if found != wanted:
        raise CheckpointError(
            f"the state holds {found or 'nothing'} of the objective, but this one has {wanted or 'nothing'}; "
            "delete the trial's folder and run again"
        )
    if isinstance(objective, nn.Module):
        objective.load_state_dict(state)


def trained_with(model: nn.Module, objective: Objective) -> nn.Module:
    """All that an optimiser trains: the student, and behind it the objective's own parameters, if any."""
    has_parameters = isinstance(objective, nn.Module) and any(True for _ in objective.parameters())
    return nn.ModuleList([model, objective]) if has_parameters else model  # type: ignore[list-item]


def average_gradients(objective: Objective, team: Team) -> None:
    """Make the gradients of the objective's parameters the mean over ranks, as those of the student are."""
    if team.size == 1 or not isinstance(objective, nn.Module):
        return
    for parameter in objective.parameters():
        if parameter.grad is not None:
            parameter.grad.copy_(team.sum(parameter.grad) / team.size)
