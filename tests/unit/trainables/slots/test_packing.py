from __future__ import annotations

import pytest

from trainables.config import OBJECTIVE_CONFIGS
from trainables.objectives import OBJECTIVES
from trainables.signals import StatefulObjective
from trainables.slots.packed.packing import keeps_alone

PACKED = {"ce", "ls", "kd", "dkd", "dist", "aekt", "clkd", "ckd", "mlld", "crld"}


@pytest.mark.parametrize("name", OBJECTIVE_CONFIGS)
def test_an_objective_says_whether_it_keeps_a_state(name: str) -> None:
    assert OBJECTIVE_CONFIGS[name]().keeps_state == issubclass(OBJECTIVES[name], StatefulObjective)


def test_objectives_of_logits_alone_can_be_packed() -> None:
    assert {name for name, config in OBJECTIVE_CONFIGS.items() if keeps_alone(config()) is None} == PACKED
