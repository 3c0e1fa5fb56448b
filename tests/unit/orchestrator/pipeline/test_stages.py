from __future__ import annotations

import errno
import io
from pathlib import Path
from typing import Any

import pytest

from orchestrator.pipeline.stages import Stages
from orchestrator.records.events import EpochEnded, StageEvent
from orchestrator.records.ledger import Ledger
from orchestrator.terminal.console import Console
from tests.unit.full_disk import largest_file
from trainables.errors import StillhouseError


class Work:
    """Counts how often it is done; fails where told to."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.times = 0
        self._error = error

    def __call__(self) -> dict[str, Any]:
        self.times += 1
        if self._error is not None:
            raise self._error
        return {"time": self.times}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def stages(ledger: Ledger, said: io.StringIO) -> Stages:
    return Stages(ledger, Console(out=said))


def events(ledger: Ledger) -> list[tuple[str, str, str]]:
    return [(e.stage, e.key, e.status) for e in ledger.events_of(StageEvent)]


def test_a_stage_is_run_and_noted(stages: Stages, ledger: Ledger, said: io.StringIO) -> None:
    assert stages.run("cache", "k", Work()) == {"time": 1}
    assert events(ledger) == [("cache", "k", "started"), ("cache", "k", "finished")]
    assert ledger.events_of(StageEvent)[1].result == {"time": 1}
    assert stages.seconds["cache"] == ledger.events_of(StageEvent)[1].seconds
    assert stages.seconds["cache"] >= 0
    assert "cache" in said.getvalue()


def test_a_finished_stage_is_not_run_again(stages: Stages, ledger: Ledger, said: io.StringIO) -> None:
    work = Work()
    stages.run("cache", "k", work)
    later = Stages(Ledger(ledger.path.parent), Console(out=said))
    assert not later.is_finished("cache", "other")
    assert later.is_finished("cache", "k")
    assert later.run("cache", "k", work) == {"time": 1}
    assert work.times == 1
    assert later.seconds == stages.seconds
    assert "cache: done before" in said.getvalue()


def test_other_inputs_and_other_stages_are_run(stages: Stages) -> None:
    work = Work()
    for stage, key in (("cache", "k"), ("cache", "other"), ("search", "k")):
        stages.run(stage, key, work)
    assert work.times == 3


def test_a_result_that_is_no_longer_valid_is_made_again(stages: Stages) -> None:
    work, asked = Work(), list[dict[str, Any]]()

    def is_valid(result: dict[str, Any]) -> bool:
        asked.append(result)
        return bool(result["time"] == 2)

    for expected in (1, 2, 2):
        assert stages.run("cache", "k", work, still_valid=is_valid) == {"time": expected}
    assert asked == [{"time": 1}, {"time": 2}]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StillhouseError("no room"), "failed"),
        (ZeroDivisionError("no room"), "failed"),
        (KeyboardInterrupt("no room"), "interrupted"),
        (SystemExit("no room"), "failed"),
    ],
)
def test_what_stops_a_stage_is_noted_and_passed_on(
    stages: Stages, ledger: Ledger, error: BaseException, status: str
) -> None:
    with pytest.raises(type(error)) as caught:
        stages.run("cache", "k", Work(error))
    assert caught.value is error
    assert events(ledger) == [("cache", "k", "started"), ("cache", "k", status)]
    assert ledger.events_of(StageEvent)[1].reason == "no room"
    assert not stages.is_finished("cache", "k")
    assert stages.run("cache", "k", Work()) == {"time": 1}


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "student.pt"),
        RuntimeError("in a worker: OSError: [Errno 28] No space left on device: 'x'"),
        OSError(errno.EROFS, "Read-only file system"),
        RuntimeError("OSError: [Errno 28] Error writing bytes. Detail: [errno 28] No space left on device"),
    ],
)
def test_storage_that_takes_no_more_is_one_line_whoever_met_it(stages: Stages, error: Exception) -> None:
    with pytest.raises(
        StillhouseError, match=r"^cache: storage takes no more: .*; free space and run again$"
    ):
        stages.run("cache", "k", Work(error))


def test_an_error_that_names_no_storage_is_told_as_it_is_unless_storage_takes_no_more(
    stages: Stages, ledger: Ledger
) -> None:
    """So a library says that reads back what it could not write whole."""
    with pytest.raises(EOFError):
        stages.run("cache", "k", Work(EOFError()))
    assert [path.name for path in ledger.path.parent.iterdir()] == ["ledger.jsonl"]

    full = pytest.raises(StillhouseError, match=r"cache: storage takes no more: .*File too large.*free space")
    with largest_file(8192), full:
        stages.run("cache", "k", Work(EOFError()))


def test_behind_other_errors_storage_is_found_too(stages: Stages) -> None:
    outer = ValueError("the worker said no")
    outer.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(StillhouseError, match="No space left on device"):
        stages.run("cache", "k", Work(outer))


def test_a_ledger_that_takes_no_more_is_told_as_such(stages: Stages, ledger: Ledger) -> None:
    def work() -> dict[str, Any]:
        try:
            ledger.append(EpochEnded(trial="t" * 10_000, epoch=1, metrics={}))
        except StillhouseError as error:
            raise RuntimeError(f"Tune's word for it: {error}") from None
        return {}

    stages.run("teacher", "k", Work())
    with (
        largest_file(ledger.path.stat().st_size + 500),
        pytest.raises(
            StillhouseError, match=r"^cannot write the ledger .*; what was there is intact; free space"
        ),
    ):
        stages.run("search", "k", work)
    assert len(Ledger(ledger.path.parent).events()) >= 3
