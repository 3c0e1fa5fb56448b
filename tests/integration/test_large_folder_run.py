"""A whole run on an image folder that stays in its files, and one whose files are damaged meanwhile."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from cluster.session import connect
from orchestrator.pipeline.workers import Workers
from orchestrator.terminal.console import Console
from tests.integration.command_line_runs import SPACE, Task, finish
from tests.integration.watched_search import Search, experiment_of, space_of
from tests.unit.trainables.data.image_folders import config_of, write_folder
from tests.unit.trainables.data.layouts.written_layouts import LAYOUTS
from trainables.errors import StillhouseError

pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.slow]

EXPERIMENT = """\
name: pictures
data: {name: image_folder, root: "ROOT", image_size: 16, memory_gb: 0, skip_unreadable: SKIP}
teacher: {model: {name: mlp}, training: {epochs: 1}}
student: {name: mlp}
views:
  weak: {views: 2, recipe: [{op: random_resized_crop}, {op: crop_flip, padding: 1}]}
training: {epochs: EPOCHS, batch_size: 8, checkpoint_every: 1, precision: fp32}
space: space.yaml
budget: {trials: 2, finalists: 1, seeds: 1, max_failed_trials: 100}
cluster: {slots: 1}
"""


def task_of(folder: Path, objective: str, *, skip: bool, epochs: int) -> Task:
    write_folder(folder / "pictures", per_class=40, suffix="png")
    task = Task(folder, folder / "out", objective=objective)
    words = {"ROOT": str(folder / "pictures"), "SKIP": str(skip).lower(), "EPOCHS": str(epochs)}
    text = EXPERIMENT
    for word, value in words.items():
        text = text.replace(word, value)
    (folder / "task.yaml").write_text(text)
    (folder / "space.yaml").write_text(SPACE.replace("OBJECTIVE", objective))
    return task


def teacher_in(events: list[dict[str, Any]]) -> dict[str, Any] | None:
    return next(
        (event["result"] for event in events if event.get("stage") == "teacher" and "result" in event), None
    )


def test_a_folder_in_its_files_goes_through_teacher_cache_search_and_test(tmp_path: Path) -> None:
    task = task_of(tmp_path, "kd", skip=True, epochs=3)
    (tmp_path / "pictures/train/rose/7.png").write_bytes(b"")
    ended = finish(task.start())
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-4000:]
    assert "images looked at: 80/80" in ended.stdout
    assert "1 unreadable images are left out (data.skip_unreadable)" in ended.stdout
    assert "answers proved against the live teacher" in ended.stdout
    teacher = teacher_in(task.events())
    assert teacher is not None
    assert teacher["split"]["left_out"] == 1
    summary = json.loads((task.out / "summary.json").read_text())
    assert summary["champion"]["trial_id"]


def test_images_within_larger_files_go_through_teacher_cache_search_and_test(tmp_path: Path) -> None:
    task = task_of(tmp_path, "kd", skip=False, epochs=2)
    shutil.rmtree(tmp_path / "pictures")
    LAYOUTS["tars"](tmp_path / "pictures")
    ended = finish(task.start())
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-4000:]
    assert f"data: layout tars in {tmp_path / 'pictures'}; split test is the test part" in ended.stdout
    assert "images looked at: 24/24" in ended.stdout
    assert "answers proved against the live teacher" in ended.stdout
    summary = json.loads((task.out / "summary.json").read_text())
    assert summary["champion"]["trial_id"]


def test_a_file_that_is_damaged_during_a_search_stops_the_run_and_is_named(tmp_path: Path) -> None:
    task = task_of(tmp_path, "ce", skip=False, epochs=500)
    process = task.start()
    task.wait_for(process, lambda events: any(event["kind"] == "epoch" for event in events))
    for path in (tmp_path / "pictures/train").rglob("*.png"):
        path.write_bytes(path.read_bytes()[:60])
    ended = finish(process)
    assert ended.returncode != 0
    train = task.folder / "pictures" / "train"
    words = rf"error: .*[0-9]+ of [0-9]+ images cannot be read: {train}/.*; repair or remove them"
    assert any(re.match(words, line) for line in ended.stderr.splitlines()), ended.stderr[-4000:]
    assert sum(event["kind"] == "trial_ended" for event in task.events()) <= 2


def test_a_slot_that_finds_unreadable_images_ends_the_search(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "pictures")
    (root / "train/daisy/1.tif").write_bytes(b"")
    experiment = experiment_of({"name": "mlp"}).with_overrides(data=config_of(root))
    with connect("local", cpus=2), Workers(experiment, tmp_path, Console(json_only=True)) as workers:
        workers.start_slots()
        search = Search(workers, experiment, space_of(lr=[0.1]), tmp_path / "search")
        with pytest.raises(
            StillhouseError, match=r"1 of 28 images cannot be read: .*daisy/1\.tif \(the file is empty\)"
        ):
            search.run()
