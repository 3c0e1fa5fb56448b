"""At which rung a trial was stopped, as Tune's own brackets have them."""

from __future__ import annotations

import pytest
from ray.tune.schedulers.async_hyperband import _Bracket

from search_spaces.scheduler_config import AshaScheduler, MedianScheduler


@pytest.mark.parametrize(("grace", "factor", "epochs"), [(1, 4, 100), (3, 2, 48), (5, 3, 44)])
def test_the_rung_is_that_of_tunes_bracket(grace: int, factor: int, epochs: int) -> None:
    config = AshaScheduler(name="asha", grace_period=grace, reduction_factor=factor)
    bracket = _Bracket(grace, epochs, factor, 0)
    milestones = sorted(milestone for milestone, _ in bracket._rungs)
    assert len(milestones) >= 2
    for rung, milestone in enumerate(milestones, start=1):
        assert config.place_of(int(milestone)) == f"after epoch {int(milestone)}, at rung {rung}"


def test_a_scheduler_without_rungs_names_the_epoch_alone() -> None:
    assert MedianScheduler(name="median").place_of(4) == "after epoch 4"
