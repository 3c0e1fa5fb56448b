"""An output folder that was copied or moved names no absolute place, and is shown and picked from.

That a moved folder goes on to train is shown by test_older_run_goes_on.py.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from tests.integration.command_line_runs import Task, finish

pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.slow]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """A finished run."""
    folder = tmp_path_factory.mktemp("original")
    task = Task(folder / "project", folder / "out", objective="kd")
    done = finish(task.start("--trials", "2"))
    assert done.returncode == 0, done.stderr
    return task


def contents(folder: Path) -> dict[str, tuple[int, str]]:
    """Time of change and sha256 of every file."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in folder.rglob("*")
        if path.is_file()
    }


def copied(original: Task, folder: Path) -> Task:
    shutil.copytree(original.folder, folder / "elsewhere" / "project")
    shutil.copytree(original.out, folder / "elsewhere" / "results")  # with other times, and another name
    return Task(folder / "elsewhere" / "project", folder / "elsewhere" / "results", objective="kd")


def names_of_the_original(task: Task, original: Task) -> list[str]:
    """Files of a folder whose text names the place where it was made; Tune's and Ray's logs may."""
    known = str(original.out).encode()
    files = [path.relative_to(task.out) for path in task.out.rglob("*.*") if path.is_file()]
    texts = [name for name in files if name.suffix != ".db" and name.parts[0] not in ("tune", "slots")]
    return sorted(str(name) for name in texts if known in (task.out / name).read_bytes())


def test_what_a_folder_holds_names_no_absolute_place_of_it(original: Task) -> None:
    assert names_of_the_original(original, original) == []


def test_a_copy_is_shown_and_picked_from_when_the_original_is_gone(original: Task, tmp_path: Path) -> None:
    task = copied(original, tmp_path)
    away = original.out.rename(original.out.with_name("gone"))
    before, ledger = contents(away), (task.out / "ledger.jsonl").read_bytes()
    try:
        shown = finish(task.start("--trials", "2", "--json"))
        assert shown.returncode == 0, shown.stderr
        assert (task.out / "ledger.jsonl").read_bytes() == ledger
        champion = json.loads(shown.stdout)["champion"]
        files = [Path(file["path"]) for file in champion["exports"].values()]
        assert all(file.is_file() and file.is_relative_to(task.out) for file in files)
        words = ("--trials", "2", "--where", "selection_accuracy >= 0.01")
        picked = finish(task.start(*words, command="pick"))
        assert picked.returncode == 0, picked.stderr
        assert "starting Ray" not in picked.stdout
        added = task.events()[len(ledger.splitlines()) :]
        assert {event["kind"] for event in added} <= {"stage", "artifact"}
        assert {event["stage"] for event in added if event["kind"] == "stage"} == {"summary"}
        assert not original.out.exists()
        assert contents(away) == before
        assert names_of_the_original(task, original) == []
    finally:
        away.rename(original.out)
