"""A run that another process holds is shown from the events of its ledger."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console as RichConsole

from orchestrator.records.events import (
    EpochEnded,
    LedgerEvent,
    StageEpoch,
    StageEvent,
    TrialEnded,
    TrialStarted,
)
from orchestrator.search.followed_run import FollowedRun
from trainables.config import Role


class Now:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def run(now: Now) -> FollowedRun:
    return FollowedRun(trials=4, now=now)


def at(second: float, event: Any) -> Any:
    assert isinstance(event, LedgerEvent)
    return event.model_copy(update={"time_ms": int(1000 * second)})


def stage(name: str, status: str = "started", **more: Any) -> Any:
    return StageEvent.model_validate({"stage": name, "key": "k", "status": status, **more})


def started(trial: str, role: Role = Role.SEARCH) -> TrialStarted:
    spec = {"training": {"epochs": 8}}
    return TrialStarted(trial=trial, role=role, search="s", objective="kd", parameters={}, spec=spec)


def epoch(trial: str, number: int, accuracy: float) -> EpochEnded:
    metrics = {"selection/accuracy": accuracy, "seconds": 2.0, "train/images_per_s": 500.0}
    return EpochEnded(trial=trial, epoch=number, metrics=metrics)


def ended(trial: str, status: Any = "completed") -> TrialEnded:
    return TrialEnded(
        trial=trial, status=status, epochs=8, final={}, reason=None, best_epoch=1, best={}, checkpoint=None
    )


def picture(run: FollowedRun) -> str:
    out = io.StringIO()
    RichConsole(file=out, width=120, height=30).print(run)
    return out.getvalue()


def test_a_search_is_shown_as_the_run_itself_shows_it(run: FollowedRun) -> None:
    run.add([at(0, stage("teacher")), at(50, stage("teacher", "finished", seconds=50.0))])
    run.add([at(60, stage("search")), at(61, started("kd-a")), at(61, started("kd-b"))])
    run.add([at(63, epoch("kd-a", 1, 0.5)), at(65, epoch("kd-a", 2, 0.75)), at(66, ended("kd-b", "pruned"))])
    shown = picture(run)
    assert "teacher 50 s" in shown
    assert "1/4 trials (1 pruned)" in shown
    (row,) = [line.split() for line in shown.splitlines() if line.startswith("kd-a")]
    assert row[1:8] == ["kd", "2/8", "75.00", "%", "75.00", "%", "500"]
    assert "best kd-a 75.00 %" in run.line()


def test_finalists_have_a_table_of_their_own_and_wait_until_they_are_heard_of(run: FollowedRun) -> None:
    run.add([at(0, stage("search")), at(1, started("kd-a")), at(2, ended("kd-a"))])
    run.add([at(3, stage("search", "finished", seconds=3.0)), at(4, stage("finalists"))])
    run.add([at(4, started("kd-a-seed0", Role.FINALIST)), at(4, started("ce-seed0", Role.BASELINE))])
    run.add([at(5, epoch("ce-seed0", 1, 0.5))])
    shown = picture(run)
    assert "finalists and controls" in shown
    assert "0/2 trials" in shown
    assert "1 running, 1 waiting" in shown


def test_a_finalist_that_starts_again_is_counted_once_more(run: FollowedRun) -> None:
    run.add([at(4, stage("finalists")), at(4, started("f", Role.FINALIST)), at(5, ended("f", "failed"))])
    run.add([at(6, stage("finalists")), at(6, started("f", Role.FINALIST)), at(7, ended("f"))])
    assert "2/2 trials (1 completed, 1 failed)" in run.line()


def test_trials_of_an_earlier_session_go_on_with_the_same_table(run: FollowedRun, now: Now) -> None:
    """A break of hours, in which nobody trained, is no part of how fast epochs come."""
    run.add([at(0, stage("search")), at(1, started("kd-a")), at(1, started("kd-b"))])
    run.add([at(2, ended("kd-b")), *(at(2 + 2 * n, epoch("kd-a", n, 0.5)) for n in (1, 2, 3))])
    run.add([at(9000, stage("cache")), at(9001, stage("search")), at(9003, epoch("kd-a", 4, 0.6))])
    now.s = 9004.0
    line = run.line()
    assert "1/4 trials" in line
    assert "best kd-a 60.00 %" in line
    assert "at most 39 s left" in line  # 4 epochs of it, 1 s gone, and 16 to come, 2 s each, by one slot


def test_a_stage_without_trials_tells_how_long_and_how_far_it_is(run: FollowedRun, now: Now) -> None:
    told = StageEpoch(stage="teacher", key="k", epoch=7, metrics={"selection/accuracy": 0.875})
    run.add([at(1000, stage("teacher")), at(1010, told)])
    now.s = 1030.0
    assert run.line() == "teacher: since 30 s, epoch 7, selection accuracy 87.50 %"


def test_the_end_of_a_run_is_its_last_word(run: FollowedRun) -> None:
    run.add([at(0, stage("summary", "finished", seconds=0.0))])
    assert run.is_finished
    assert "the run is over" in run.line()
    run.add([at(5, stage("preflight"))])
    assert not run.is_finished


def test_a_stage_that_failed_is_told_with_its_reason(run: FollowedRun) -> None:
    run.add([at(0, stage("search")), at(1, stage("search", "failed", reason="no slot came up"))])
    assert run.stopped == "stage search failed: no slot came up"
    assert "no slot came up" in run.line()


def test_a_word_on_the_run_stands_below_it(run: FollowedRun) -> None:
    run.add([at(0, stage("search"))])
    run.note = "nothing was written for 3 min"
    assert "nothing was written for 3 min" in picture(run)
    assert run.line().endswith("nothing was written for 3 min")


def test_programs_read_counts_and_the_best(run: FollowedRun) -> None:
    run.add([at(0, stage("search")), at(1, started("kd-a")), at(1, started("kd-b"))])
    run.add([at(2, epoch("kd-a", 1, 0.5)), at(3, ended("kd-b", "failed"))])
    plain = run.plain()
    assert plain["trials"] == {"not ended": 1, "failed": 1}
    assert plain["best"] == {"trial": "kd-a", "figure": 0.5}
    assert plain["stage"] == "search"
