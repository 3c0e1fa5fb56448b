"""A whole run of an experiment without a teacher, killed on its way: its search is found again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.integration.command_line_runs import EXPERIMENT, Task, finish

pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.slow]


def task_of(folder: Path) -> Task:
    """Two students of label smoothing, one of them a finalist; the file has no section `teacher`."""
    task = Task(folder, folder / "out", objective="ls")
    text = "".join(line for line in EXPERIMENT.splitlines(True) if not line.startswith("teacher:"))
    (folder / "task.yaml").write_text(text.replace("trials: 6", "trials: 2"))
    (folder / "space.yaml").write_text(
        "name: space\nobjectives: {ls: {}}\ntraining: {lr: {grid_search: [0.01, 0.1]}}\n"
        "search: {algorithm: grid}\nscheduler: {name: fifo}\n"
    )
    return task


def test_labels_are_enough_and_a_killed_search_goes_on(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    process = task.start()
    task.kill_when(process, lambda events: any(event["kind"] == "epoch" for event in events))
    process.communicate()
    before = task.events()
    done = finish(task.start("--json"))
    assert done.returncode == 0, done.stderr[-4000:]
    events = task.events()
    assert events[: len(before)] == before
    started = [event for event in events if event["kind"] == "trial_started"]
    assert len({event["search"] for event in started}) == 1
    searched = [event["trial"] for event in started if event["role"] == "search"]
    assert len(set(searched)) == 2
    finished = [e["stage"] for e in events if e["kind"] == "stage" and e["status"] == "finished"]
    assert finished == [
        "preflight",
        "data",
        "search",
        "profile",
        "finalists",
        "test",
        "export",
        "register",
        "summary",
    ]
    # Once each: what was found of the data before the kill was found again.
    assert not {"teacher", "cache"} & {path.name for path in task.out.iterdir()}
    report = (task.out / "report.html").read_text(encoding="utf-8")
    told = {
        "summary.json": (task.out / "summary.json").read_text(),
        "model_card.json": (task.out / "champion" / "model_card.json").read_text(),
        "report.html": re.sub(r"<script.*?</script>", "", report, flags=re.DOTALL),
        "console": done.stdout + done.stderr,
    }
    assert [name for name, text in told.items() if "teacher" in text.lower()] == []
    assert json.loads(done.stdout)["champion"]["objective"] == "ls"
    runs = task.mlflow_runs()
    assert len(runs) == 1 + len({event["trial"] for event in started})
    (parent,) = (run for run in runs if "trial_id" not in run.data.tags)
    assert not any("teacher" in name for name in (*parent.data.params, *parent.data.tags))
