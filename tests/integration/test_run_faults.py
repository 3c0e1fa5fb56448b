"""The command line is stopped, killed, and run into a full disk; run again, it goes on."""

from __future__ import annotations

import json
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from mlflow.entities import Run

from tests.integration.command_line_runs import Task, finish, n_ended, running, with_runs

pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.slow]

STORAGE_BYTES = 24 << 20


@dataclass(frozen=True)
class Story:
    """What three runs in one folder left: one stopped by SIGTERM, one killed, one left alone."""

    stopped: subprocess.CompletedProcess[str]
    runs_at_stop: list[Run]
    events_at_stop: list[dict[str, Any]]
    events_at_kill: list[dict[str, Any]]
    finished: subprocess.CompletedProcess[str]
    events: list[dict[str, Any]]
    runs: list[Run]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("task")
    task = Task(folder, folder / "out")

    first = task.start()
    task.wait_for(first, lambda events: n_ended(events) >= 1 and max(running(events).values(), default=0) > 0)
    first.send_signal(signal.SIGTERM)
    stopped = finish(first)
    runs_at_stop, at_stop = task.mlflow_runs(), task.events()

    second, before = task.start(), n_ended(at_stop)
    task.kill_when(
        second, lambda events: n_ended(events) > before and max(running(events).values(), default=0) > 0
    )
    finish(second)
    at_kill = task.events()

    finished = finish(task.start())
    return Story(stopped, runs_at_stop, at_stop, at_kill, finished, task.events(), task.mlflow_runs())


def test_sigterm_ends_the_process_soon_and_says_how_to_go_on(story: Story) -> None:
    assert story.stopped.returncode == 130, story.stopped.stderr
    assert "go on with: stillhouse run task.yaml --out" in story.stopped.stderr
    assert "Traceback" not in story.stopped.stderr


def test_after_sigterm_mlflow_has_nothing_running_and_the_open_trials_killed(story: Story) -> None:
    by_trial = {run.data.tags.get("trial_id"): run.info.status for run in story.runs_at_stop}
    assert "RUNNING" not in by_trial.values()
    assert by_trial[None] == "KILLED"
    told = {trial for trial, epochs in running(story.events_at_stop).items() if epochs > 0}
    assert {by_trial[trial] for trial in told} == {"KILLED"}


def test_after_a_kill_finished_trials_stay_finished_and_running_ones_go_on(story: Story) -> None:
    assert story.finished.returncode == 0, story.finished.stderr
    assert story.events[: len(story.events_at_kill)] == story.events_at_kill
    assert running(story.events_at_kill)
    ends = Counter(event["trial"] for event in story.events if event["kind"] == "trial_ended")
    starts = Counter(event["trial"] for event in story.events if event["kind"] == "trial_started")
    assert set(ends.values()) == set(starts.values()) == {1}
    assert set(ends) == set(starts)


def test_after_a_kill_every_epoch_is_told_once_and_in_order(story: Story) -> None:
    seen: dict[str, list[int]] = {}
    for event in story.events:
        if event["kind"] == "epoch":
            seen.setdefault(event["trial"], []).append(event["epoch"])
    assert all(epochs == list(range(1, len(epochs) + 1)) for epochs in seen.values())


def test_after_a_kill_the_scheduler_still_knows_its_rungs(story: Story) -> None:
    """ASHA compares with the median of those that came to a rung earlier, before or after a kill."""
    final = {e["trial"]: e for e in story.events if e["kind"] == "trial_ended"}
    searched = [e["trial"] for e in story.events if e["kind"] == "trial_started" and e["role"] == "search"]
    first_rung: list[float] = []
    for trial in sorted(searched, key=lambda name: when_first_told(story.events, name)):
        accuracy = next(
            e["metrics"]["selection/accuracy"]
            for e in story.events
            if e["kind"] == "epoch" and e["trial"] == trial
        )
        went_on = final[trial]["epochs"] > 1
        assert went_on == (not first_rung or accuracy >= median_of(first_rung)), (trial, accuracy, first_rung)
        first_rung.append(accuracy)


def when_first_told(events: list[dict[str, Any]], trial: str) -> int:
    return next(n for n, e in enumerate(events) if e["kind"] == "epoch" and e["trial"] == trial)


def median_of(values: list[float]) -> float:
    """As ASHA takes it, linearly between neighbours."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def test_after_a_kill_mlflow_has_no_duplicate_and_nothing_running(story: Story) -> None:
    assert {run.info.status for run in story.runs} <= {"FINISHED", "KILLED", "FAILED"}
    ids = Counter(run.data.tags["trial_id"] for run in story.runs if "trial_id" in run.data.tags)
    assert set(ids.values()) == {1}
    assert set(ids) == with_runs(story.events)
    parents = [run.info.status for run in story.runs if "trial_id" not in run.data.tags]
    assert parents == ["FINISHED"]


@contextmanager
def small_storage(place: Path) -> Iterator[Path]:
    """A file system of its own, of few bytes."""
    place.mkdir()
    options = f"size={STORAGE_BYTES}"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"mounting a tmpfs is not permitted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(filler: Path) -> None:
    """Take every byte that is left."""
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            while True:
                try:
                    file.write(b"\0" * size)
                except OSError:
                    break


def error_of(ended: subprocess.CompletedProcess[str]) -> str:
    """The one line that says what went wrong."""
    lines = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, ended.stderr
    return lines[0]


def assert_readable(task: Task) -> None:
    """Every line of the ledger is whole, and so is every Parquet file."""
    text = (task.out / "ledger.jsonl").read_text()
    assert text.endswith("\n")
    assert [json.loads(line)["seq"] for line in text.splitlines()] == list(range(text.count("\n")))
    shards = list(task.out.glob("cache/**/*.parquet"))
    assert shards
    for shard in shards:
        assert pq.read_table(shard).num_rows > 0


def test_full_and_read_only_storage_are_said_and_harm_nothing(tmp_path: Path) -> None:
    with small_storage(tmp_path / "small") as place:
        task = Task(tmp_path / "task", place / "out", objective="kd")
        process = task.start()
        task.wait_for(process, lambda events: n_ended(events) >= 1)
        fillers = [place / "filler", place / "another"]
        fill(fillers[0])
        ended = finish(process)
        assert ended.returncode == 1, ended
        error = error_of(ended)
        assert "No space left on device" in error
        assert "free space" in error
        assert "Traceback" not in ended.stderr
        assert_readable(task)

        fill(fillers[1])  # what the run that ended had written half is gone, and its bytes are free
        refused = finish(task.start())
        assert refused.returncode == 1, refused
        assert "free space" in refused.stderr

        for filler in fillers:
            filler.unlink()
        again = finish(task.start())
        assert again.returncode == 0, again
        assert {e["status"] for e in task.events() if e["kind"] == "trial_ended"} <= {"completed", "pruned"}
        assert_readable(task)

        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        read_only = finish(task.start("--trials", "7"))
        assert read_only.returncode == 1, read_only
        error = error_of(read_only)
        assert "Read-only file system" in error
        assert_readable(task)
