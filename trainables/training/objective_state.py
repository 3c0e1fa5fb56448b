"""What an objective adds to a course beside its loss: a state to go on from, which ranks share."""

# N = training samples, V = values of all of an objective's buffers

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn

from trainables.errors import CheckpointError
from trainables.signals import Objective
from trainables.training.ranks import Team, settle

MAX_TOLD: Final = 3
"""Entries of a state that a message names of each kind; of the others their number is told."""


def restore_state(objective: Objective[Any], state: dict[str, Tensor]) -> None:
    """Bring back the parameters and buffers that its `state_dict` gave; most objectives have none.

    Raises:
        CheckpointError: the state is that of another objective, or of one made for other data.
    """
    if differences := _differences(_shapes(state), _shapes(objective.state_dict())):
        raise CheckpointError(
            f"the state of the objective does not fit this one: {'; '.join(differences)}; its "
            "hyper-parameters, or the data, have changed: delete the trial's folder and run again"
        )
    objective.load_state_dict(state)


def _shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


def _differences(found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> list[str]:
    """What a state lacks, has too much, and has in other shapes; nothing where it fits."""
    both = [name for name in wanted if name in found and found[name] != wanted[name]]
    told = {
        "it lacks": [name for name in wanted if name not in found],
        "it has besides": [name for name in found if name not in wanted],
        "of other shapes are": [f"{name} {found[name]}, here {wanted[name]}" for name in both],
    }
    return [f"{what} {_some(names)}" for what, names in told.items() if names]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MAX_TOLD} more" if len(names) > MAX_TOLD else ""
    return ", ".join(names[:MAX_TOLD]) + more


class SharedTables:
    """Makes the tables by sample, and all other buffers, of an objective common to the ranks after an epoch.

    Within an epoch each rank writes the rows of its own shares, and reads the others' as they were when the
    epoch began.
    """

    def __init__(self, objective: Objective[Any], team: Team) -> None:
        """Nothing is copied where one rank has it all."""
        self._objective, self._team = objective, team
        self._before: dict[str, Tensor] = {}

    def begin(self) -> None:
        """Remember the tables as they are before an epoch."""
        if self._team.size > 1:
            tables = self._objective.row_tables
            self._before = {name: self._objective.get_buffer(name).clone() for name in tables}

    def settle(self) -> None:
        """A row that some ranks changed becomes their mean; other buffers of floats the mean over ranks.

        Buffers that are no part of the state, such as a teacher's weights, stay as they are, to the bit.
        """
        if self._team.size == 1:
            return
        for name, before in self._before.items():
            _merge(self._objective.get_buffer(name), before, self._team)
        kept = self._objective.state_dict().keys() - self._before.keys()
        others = {name: buffer for name, buffer in self._objective.named_buffers() if name in kept}
        settle(_Buffers(others), self._team)


class _Buffers(nn.Module):
    """Buffers of other modules, which stay theirs."""

    def __init__(self, buffers: dict[str, Tensor]) -> None:
        super().__init__()
        for number, buffer in enumerate(buffers.values()):
            self.register_buffer(str(number), buffer)


def _merge(table: Tensor, before: Tensor, team: Team) -> None:
    changed_N = (table != before).flatten(1).any(dim=1) if table.ndim > 1 else table != before
    shaped = changed_N.view(-1, *[1] * (table.ndim - 1))
    total = team.sum(torch.where(shaped, table.double(), 0.0))
    ranks = team.sum(changed_N.double()).view(shaped.shape)
    mean = (total / ranks.clamp(min=1)).to(table.device)
    touched = (ranks > 0).to(table.device)
    table.copy_(torch.where(touched, mean, before.double()).to(table.dtype))
