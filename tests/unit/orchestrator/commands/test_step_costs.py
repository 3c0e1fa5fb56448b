"""What a step of each objective costs is told of the step alone."""

from __future__ import annotations

import pytest
import torch

from orchestrator.commands import step_costs
from orchestrator.commands.step_costs import BATCH, N_TRAIN, RandomTeacher


def test_the_answers_stand_ready_after_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shape of a feature takes a pass of the network, which no timed step may pay for."""
    data = step_costs._noise()
    teacher = RandomTeacher(step_costs._network(step_costs.TEACHER), data, torch.device("cpu"))
    names = ("embedding", "energy.stage1", "ss_head", "branch2")
    rows_B = torch.arange(BATCH)
    first = teacher.signal("weak", 0, rows_B, names)
    monkeypatch.setattr(teacher, "feature_shapes", lambda _: pytest.fail("asked again"))
    again = teacher.signal("weak", 0, rows_B, names)
    assert all(torch.equal(first.features[name], again.features[name]) for name in names)
    assert torch.equal(first.logits_BC, again.logits_BC)
    assert teacher.signal("weak", 0, torch.arange(N_TRAIN), names).features["branch2"].shape == (N_TRAIN, 40)
    assert first.features["energy.stage1"].shape == (BATCH, 28, 28)
