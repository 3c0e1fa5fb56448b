"""The first look at a large image folder, and what is told of a teacher."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.loading import load_experiment
from orchestrator.pipeline.basis.data_stage import look_at_images
from orchestrator.pipeline.context import Run
from orchestrator.pipeline.stages import Stages
from orchestrator.pipeline.teacher_stage import teacher_request, teacher_stage
from orchestrator.pipeline.workers import Workers
from orchestrator.records.events import StageEvent
from orchestrator.records.ledger import Ledger
from orchestrator.terminal.console import Console
from tests.unit.trainables.data.image_folders import config_of, write_folder
from trainables.config import DataConfig
from trainables.config.data import DataName
from trainables.errors import DataError, StillhouseError
from trainables.training.train_teacher import TeacherFacts, TeacherRequest

FACTS: dict[str, Any] = {
    "fingerprint": "f" * 64,
    "params": 9,
    "selection_accuracy": 0.9703,
    "split": {
        "data_digest": "d",
        "ids_digest": "i",
        "n_train": 9,
        "classes": ["a", "b"],
        "mean": [0.5],
        "std": [0.5],
        "input_shape": [1, 8, 8],
    },
}


def said(config: DataConfig) -> str:
    out = io.StringIO()
    look_at_images(config, Console(out=out))
    return out.getvalue()


def test_the_first_look_tells_how_far_it_is_and_the_second_has_nothing_to_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    root = write_folder(tmp_path / "pictures", per_class=3)
    assert said(config_of(root)) == "images looked at: 6/6\n"
    assert said(config_of(root)) == ""


def test_other_data_are_not_looked_at(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "pictures", per_class=3)
    assert said(config_of(root, memory_gb=1)) == ""
    assert said(DataConfig(name=DataName.DIGITS)) == ""


def test_a_folder_that_this_machine_does_not_have_is_left_to_those_that_load_it(tmp_path: Path) -> None:
    assert said(config_of(tmp_path / "elsewhere")) == ""


def run_of(folder: Path, teacher: Mapping[str, Any], out: io.StringIO | None = None) -> Run:
    loaded = load_experiment("digits")
    config = loaded.config.with_overrides(teacher={"model": {"name": "mlp"}, **teacher})
    ledger, console = Ledger(folder), Console(out=out or io.StringIO())
    stages, workers = Stages(ledger, console), Workers(config, folder, console)
    return Run(replace(loaded, config=config), folder, ledger, stages, workers, console)


@pytest.mark.parametrize("expected", [0.97, 0.99])
def test_a_teacher_that_falls_short_of_what_is_expected_stops_the_run(
    tmp_path: Path, expected: float
) -> None:
    run = run_of(tmp_path, {"expected_accuracy": expected})
    (tmp_path / "t.safetensors").write_bytes(b"")
    facts = {**FACTS, "weights": str(tmp_path / "t.safetensors")}
    _, key = teacher_request(run)
    run.ledger.append(StageEvent(stage="teacher", key=key, status="finished", seconds=1.0, result=facts))
    if expected < 0.9703:
        assert teacher_stage(run).selection_accuracy == 0.9703
        return
    with pytest.raises(StillhouseError, match=r"97\.03 % of .*expected_accuracy asks for 99\.00 %; check"):
        teacher_stage(run)


CHANCE = {"images": 500, "right": 50, "by_chance": 0.1}


def finished(run: Run, weights: Path, **found: Any) -> None:
    facts = {**FACTS, "weights": str(weights), "chance": CHANCE, **found}
    _, key = teacher_request(run)
    run.ledger.append(StageEvent(stage="teacher", key=key, status="finished", seconds=1.0, result=facts))


def test_a_loaded_teacher_that_is_right_by_chance_stops_the_run_whenever_it_goes_on(tmp_path: Path) -> None:
    weights = tmp_path / "given.pt"
    weights.write_bytes(b"weights")
    run = run_of(tmp_path, {"checkpoint": str(weights), "normalisation": "data"})
    finished(run, weights)
    with pytest.raises(StillhouseError, match=r"10\.00 % of 500 images .* no more often than by chance"):
        teacher_stage(run)


def test_a_teacher_that_was_trained_here_is_only_warned_of(tmp_path: Path) -> None:
    out = io.StringIO()
    run, weights = run_of(tmp_path, {}, out), tmp_path / "t.safetensors"
    weights.write_bytes(b"")
    finished(run, weights)
    teacher_stage(run)
    assert "warning: the teacher is right on 10.00 % of 500 images" in out.getvalue()


@pytest.mark.parametrize(
    ("n_outputs", "says"),
    [(2, "classes in another order"), (1000, "of its 1,000 classes the 2 of the data are used")],
)
def test_it_is_said_where_the_teachers_classes_are_not_the_datas(
    tmp_path: Path, n_outputs: int, says: str
) -> None:
    out = io.StringIO()
    run, weights = run_of(tmp_path, {}, out), tmp_path / "t.safetensors"
    weights.write_bytes(b"")
    finished(run, weights, chance=None, classes={"n_outputs": n_outputs, "rows": [1, 0]})
    teacher_stage(run)
    assert says in out.getvalue()


@pytest.mark.parametrize("looked_at", [None, "d", "e"])
def test_data_that_a_worker_finds_to_be_others_stop_the_run_before_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looked_at: str | None
) -> None:
    facts = TeacherFacts.from_plain({**FACTS, "weights": str(tmp_path / "t.safetensors")})
    monkeypatch.setattr(Workers, "teacher", lambda *_: facts)
    monkeypatch.setattr(Workers, "start_slots_early", lambda _: None)
    run = run_of(tmp_path, {})
    found = {"notes": [], **({} if looked_at is None else {"data_digest": looked_at})}
    run.ledger.append(StageEvent(stage="preflight", key="k", status="finished", seconds=1.0, result=found))
    if looked_at != "e":
        assert teacher_stage(run) == facts
        return
    with pytest.raises(DataError, match=r"gives other samples in each process \(digests e… and d…\)"):
        teacher_stage(run)


def test_what_is_stated_of_a_loaded_teacher_makes_another_key_and_one_trained_here_keeps_its_own(
    tmp_path: Path,
) -> None:
    weights = tmp_path / "given.pt"
    weights.write_bytes(b"weights")
    stated = [None, "data", {"mean": [0.5], "std": [0.25]}]
    given = [{"checkpoint": str(weights), "normalisation": each} for each in stated]
    keys = [teacher_request(run_of(tmp_path / "out", teacher))[1] for teacher in [{}, *given]]
    assert len(set(keys)) == 4
    # The keys that they had before a normalisation could be stated, so that what was made is not made again.
    assert keys[0] == "a36e51e82eb0de175ede4ec3ad1db75cf1bec1cd523d56f93afdd9faede632ae"


def test_a_teacher_whose_place_another_took_since_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, made = tmp_path / "teacher.safetensors", []

    def make(_: Workers, request: TeacherRequest, tell: object) -> TeacherFacts:
        made.append(Path(str(request.checkpoint)).stem)
        kept.write_text(made[-1])
        return TeacherFacts.from_plain({**FACTS, "weights": str(kept), "fingerprint": made[-1]})

    monkeypatch.setattr(Workers, "teacher", make)
    monkeypatch.setattr(Workers, "start_slots_early", lambda _: None)
    for name in "abaa":
        given = tmp_path / f"{name}.pt"
        given.write_text(name)
        run = run_of(tmp_path, {"checkpoint": str(given), "normalisation": "data"})
        assert teacher_stage(run).fingerprint == kept.read_text() == name
    assert made == ["a", "b", "a"]
