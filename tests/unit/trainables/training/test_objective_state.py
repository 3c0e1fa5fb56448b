"""What is said of an objective's state that another objective cannot go on from."""

from __future__ import annotations

import re

import pytest
import torch

from tests.numerics.feature_stand_ins import setting_of
from tests.numerics.random_signals import random_logits, signals_of
from trainables.config.objectives import SimregConfig
from trainables.errors import CheckpointError
from trainables.objectives import build_objective
from trainables.training.objective_state import restore_state


def test_a_state_that_does_not_fit_is_told_in_a_line_by_the_entries_that_differ() -> None:
    logits = random_logits(0, 4, 3)
    setting = setting_of(signals_of(logits, logits, torch.tensor([0, 1, 2, 0])))
    deep, shallow = (build_objective(SimregConfig(depth=depth), setting) for depth in (4, 1))
    with pytest.raises(CheckpointError, match=r"it has besides head\.1\.weight") as refused:
        restore_state(shallow, deep.state_dict())
    assert re.search(
        r"and \d+ more.*of other shapes are head\.0\.weight .*delete the trial's folder", str(refused.value)
    )
    assert len(str(refused.value)) < 400
    with pytest.raises(CheckpointError, match=r"it lacks head\.1\.weight"):
        restore_state(deep, shallow.state_dict())
