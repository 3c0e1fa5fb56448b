"""What an objective adds to a course beside its loss: a state to go on from."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from trainables.errors import CheckpointError
from trainables.signals import Objective


def restore_state(objective: Objective[Any], state: dict[str, Tensor]) -> None:
    """Bring back the parameters and buffers that its `state_dict` gave; most objectives have none.

    Raises:
        CheckpointError: the state is that of another objective, or of one made for other data.
    """
    found = {name: tuple(value.shape) for name, value in state.items()}
    wanted = {name: tuple(value.shape) for name, value in objective.state_dict().items()}
    if found != wanted:
        raise CheckpointError(
            f"the state holds {found or 'nothing'} of the objective, but this one has {wanted or 'nothing'}; "
            "delete the trial's folder and run again"
        )
    objective.load_state_dict(state)
