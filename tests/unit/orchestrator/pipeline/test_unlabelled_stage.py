"""Unlabelled images are counted once, told before anything trains, and do not make another teacher."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.config.loading import load_experiment
from orchestrator.pipeline.basis.unlabelled_stage import recorded_unlabelled, with_unlabelled
from orchestrator.pipeline.context import Run, quiet_run
from orchestrator.pipeline.finished import run_key
from orchestrator.pipeline.preflight import preflight
from orchestrator.pipeline.preflight_networks import NetworkChecks
from orchestrator.pipeline.teacher_stage import recorded_teacher, teacher_request
from orchestrator.records.events import StageEvent
from orchestrator.terminal.console import Console
from trainables.data import load_training
from trainables.data.splits import split_facts
from trainables.errors import ConfigError
from trainables.training.train_teacher import TeacherFacts

TASK = "tests.unit.trainables.data.unlabelled_task"
UNLABELLED = f', unlabelled: {{factory: "{TASK}:unlabelled"}}'
EXPERIMENT = f"""\
name: task
data: {{factory: "{TASK}:dataset"MORE}}
teacher: {{model: {{name: mlp}}}}
student: {{name: mlp}}
views: {{weak: {{views: 1, recipe: []}}}}
space: kd
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def within(more: str, do: Callable[[Run], None], out: io.StringIO | None = None) -> None:
    Path("task.yaml").write_text(EXPERIMENT.replace("MORE", more))
    with quiet_run(load_experiment("task.yaml"), Console(out=out or io.StringIO())) as run:
        do(run)


def facts_of(run: Run) -> TeacherFacts:
    split = split_facts(load_training(run.experiment.data.labelled))
    return TeacherFacts(
        weights="w.safetensors", fingerprint="f" * 64, params=1, selection_accuracy=0.9, split=split
    )


def test_they_are_counted_once_and_told() -> None:
    told = io.StringIO()

    def twice(run: Run) -> None:
        first = with_unlabelled(run, facts_of(run))
        assert with_unlabelled(run, facts_of(run)) == first
        assert first.split == split_facts(load_training(run.experiment.data))
        assert recorded_unlabelled(run) == first.split.unlabelled
        events = [e for e in run.ledger.events_of(StageEvent) if e.stage == "unlabelled"]
        assert [event.status for event in events] == ["started", "finished"]

    within(UNLABELLED, twice, told)
    assert "unlabelled images of " in told.getvalue()
    assert "24 in the test split too" in told.getvalue()


def test_an_experiment_without_them_has_no_such_stage() -> None:
    def none(run: Run) -> None:
        teacher = facts_of(run)
        assert with_unlabelled(run, teacher) is teacher
        assert run.ledger.events_of(StageEvent) == []

    within("", none)


def test_they_make_no_other_teacher_but_another_search() -> None:
    keys, searches = [], []

    def look(run: Run) -> None:
        keys.append(teacher_request(run)[1])
        teacher = with_unlabelled(run, facts_of(run))
        searches.append(run.search_key(teacher.split, teacher, None))

    for more in ("", UNLABELLED, UNLABELLED.replace("}", ", share: 0.25}"), UNLABELLED):
        within(more, look)
    assert len(set(keys)) == 1
    assert len(set(searches)) == 3
    assert searches[1] == searches[3]


def test_a_teacher_is_known_from_the_ledger_once_they_are_counted() -> None:
    def look(run: Run) -> None:
        teacher = facts_of(run)
        run.stages.run("teacher", teacher_request(run)[1], teacher.plain)
        assert recorded_teacher(run) is None
        whole = with_unlabelled(run, teacher)
        recorded = recorded_teacher(run)
        assert recorded is not None
        assert recorded.split == whole.split

    within(UNLABELLED, look)


def test_pictures_that_come_are_counted_again() -> None:
    Path("pool").mkdir()
    counts: list[int] = []

    def look(run: Run) -> None:
        for number in range(2):
            Image.new("L", (8, 8), 40 * number).save(f"pool/{number}.png")
            found = with_unlabelled(run, facts_of(run)).split.unlabelled
            assert found is not None
            counts.append(found.count)

    within(", unlabelled: {root: pool}", look)
    assert counts == [1, 2]


def test_a_picture_that_comes_to_the_test_part_is_counted_again() -> None:
    for index, name in enumerate(
        ("train/a/0", "train/a/1", "train/b/2", "train/b/3", "test/a/4", "test/b/5")
    ):
        Path(f"own/{name}").parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (40 * index, 0, 0)).save(f"own/{name}.png")
    Path("pool").mkdir()
    for number in range(2):
        Image.new("RGB", (8, 8), (0, 90 + number, 0)).save(f"pool/{number}.png")
    counts: list[tuple[int, int]] = []

    def look(run: Run) -> None:
        for copied in (False, True):
            if copied:
                shutil.copy("pool/0.png", "own/test/a/copy.png")
            found = with_unlabelled(run, facts_of(run)).split.unlabelled
            assert found is not None
            counts.append((found.count, found.in_test))

    folder = "data: {name: image_folder, root: own, image_size: 8, unlabelled: {root: pool}}"
    Path("task.yaml").write_text(EXPERIMENT.replace(f'data: {{factory: "{TASK}:dataset"MORE}}', folder))
    with quiet_run(load_experiment("task.yaml"), Console(out=io.StringIO())) as run:
        look(run)
    assert counts == [(2, 0), (1, 1)]


def test_pictures_that_come_to_a_finished_run_make_another() -> None:
    Path("pool").mkdir()
    keys: list[str] = []

    def look(run: Run) -> None:
        for number in range(2):
            Image.new("L", (8, 8), 40 * number).save(f"pool/{number}.png")
            keys.append(run_key(run.loaded, run.ledger))
        Path("pool/notes.txt").write_text("no picture")
        Path("pool/circle").symlink_to(Path("pool").absolute())
        keys.append(run_key(run.loaded, run.ledger))

    within(", unlabelled: {root: pool}", look)
    assert keys[0] != keys[1] == keys[2]


def test_a_folder_that_is_not_there_is_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"data\.unlabelled\.root.*'gone'; allowed: an existing folder"):
        within(", unlabelled: {root: gone}", lambda _: None)


def test_preflight_tells_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NetworkChecks, "export", lambda *_: None)

    def look(run: Run) -> None:
        found = preflight(run)
        assert found.problems == []
        (note,) = [note for note in found.notes if "unlabelled" in note]
        assert "0.5 of each batch" in note
        assert "24 in the test split too" in note

    within(UNLABELLED, look)


def test_preflight_tells_a_factory_that_does_not_exist() -> None:
    def look(run: Run) -> None:
        (problem,) = preflight(run).problems
        assert "has no function 'unlabeled'" in problem

    within(UNLABELLED.replace('unlabelled"', 'unlabeled"'), look)


def test_the_plan_of_a_cache_counts_their_rows() -> None:
    Path("task.yaml").write_text(EXPERIMENT.replace("MORE", UNLABELLED))
    done = CliRunner().invoke(app, ["cache", "plan", "task.yaml", "--json"])
    assert done.exit_code == 0, done.output
    plan = json.loads(done.stdout)
    facts = split_facts(load_training(load_experiment("task.yaml").config.data))
    assert facts.unlabelled is not None
    assert plan["rows"] == plan["rows_to_compute"] == facts.n_train + facts.unlabelled.count
    assert plan["unlabelled"] == facts.unlabelled.plain()
    said = CliRunner().invoke(app, ["cache", "plan", "task.yaml"])
    assert facts.unlabelled.left_out_in_words in " ".join(said.output.split())
