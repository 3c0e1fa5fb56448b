"""A student whose code was edited is another one: no stage, search or summary of the former counts for it."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from orchestrator.config.loading import load_experiment
from orchestrator.pipeline.context import Run, quiet_run
from orchestrator.pipeline.finished import STAGE, finished_summary, run_key
from orchestrator.pipeline.preflight import preflight_key
from orchestrator.pipeline.teacher_stage import teacher_request
from orchestrator.records.code_seen import note_code
from orchestrator.records.events import StageEvent
from orchestrator.records.ledger import Ledger
from orchestrator.records.summary import Summary, write_summary
from orchestrator.terminal.console import Console
from trainables.config.data import SplitFacts
from trainables.training.train_teacher import TeacherFacts

SPLIT = SplitFacts(
    data_digest="d",
    ids_digest="i",
    n_train=4,
    classes=("a", "b"),
    mean=(0.5,),
    std=(0.5,),
    input_shape=(1, 8, 8),
)
TEACHER = TeacherFacts(weights=None, fingerprint="t", params=None, selection_accuracy=None, split=SPLIT)
EXPERIMENT = """\
name: task
data: {factory: "edited_data:dataset"}
teacher: {model: {factory: "edited_teacher:network"}}
student: {factory: "edited_student:network"}
views: {weak: {views: 1, recipe: []}}
space: kd
"""
KEYS = ("teacher", "search", "preflight", "run", "workbench")
DEPENDS = {
    "edited_student.py": {"search", "preflight", "run", "workbench"},
    "edited_layers.py": {"search", "preflight", "run", "workbench"},
    "edited_teacher.py": {"teacher", "preflight", "run"},
    "edited_data.py": {"teacher", "preflight", "run"},
}


@pytest.fixture(autouse=True)
def _task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("task.yaml").write_text(EXPERIMENT)
    for name in DEPENDS:
        Path(name).write_text("")
    Path("edited_student.py").write_text("from edited_layers import layer\n")


def keys(run: Run) -> dict[str, str]:
    found = {
        "teacher": teacher_request(run)[1],
        "search": run.search_key(TEACHER.split, TEACHER, None),
        "preflight": preflight_key(run),
        "run": run_key(run.loaded, run.ledger),
        "workbench": run.workbench(None).digest(),
    }
    assert set(found) == set(KEYS)
    return found


def keys_now() -> dict[str, str]:
    """As the next run would have them, with what the ledger knows."""
    with quiet_run(load_experiment("task.yaml"), Console(out=io.StringIO())) as run:
        return keys(run)


def run_once() -> list[str]:
    loaded = load_experiment("task.yaml")
    ledger = Ledger(Path("out/task").absolute())
    told = list(note_code(loaded.code, ledger))
    ledger.close()
    return told


@pytest.mark.parametrize("edited", list(DEPENDS))
def test_what_an_edited_file_had_a_part_in_is_made_anew_and_nothing_else(edited: str) -> None:
    assert run_once() == []
    before = keys_now()
    Path(edited).write_text(Path(edited).read_text() + "x = 1\n")
    after = keys_now()
    assert {name for name in KEYS if before[name] != after[name]} == DEPENDS[edited]
    (told,) = run_once()
    assert re.search(rf"has changed since it was last used here \({edited.removesuffix('.py')}\)", told)
    assert keys_now() == after
    assert run_once() == []


def test_code_that_is_put_back_finds_what_it_had_made() -> None:
    run_once()
    before = keys_now()
    text = Path("edited_student.py").read_text()
    Path("edited_student.py").write_text(text + "x = 1\n")
    run_once()
    Path("edited_student.py").write_text(text)
    assert keys_now() == before


def test_a_ledger_from_before_code_was_noted_keeps_its_fingerprints() -> None:
    unknown = keys_now()
    run_once()
    assert keys_now() == unknown


def test_a_teacher_does_not_go_on_from_a_state_of_other_code() -> None:
    run_once()
    with quiet_run(load_experiment("task.yaml"), Console(out=io.StringIO())) as run:
        assert "code" not in teacher_request(run)[0].plain()
    Path("edited_teacher.py").write_text("x = 1\n")
    with quiet_run(load_experiment("task.yaml"), Console(out=io.StringIO())) as run:
        assert teacher_request(run)[0].plain()["code"]


def test_a_finished_run_of_other_code_or_of_code_unseen_is_not_this_one(summary: Summary) -> None:
    loaded = load_experiment("task.yaml")
    out = Path("out/task").absolute()
    for exported in summary.champion.exports.values():
        path = out / exported.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")
    ledger = Ledger(out)
    key = run_key(loaded, ledger)
    ledger.append(StageEvent(stage=STAGE, key=key, status="finished", seconds=0.0, result={}))
    ledger.close()
    write_summary(out / "summary.json", summary)
    assert finished_summary(loaded) is None
    run_once()
    assert finished_summary(load_experiment("task.yaml")) is not None
    Path("edited_layers.py").write_text("x = 1\n")
    assert finished_summary(load_experiment("task.yaml")) is None
