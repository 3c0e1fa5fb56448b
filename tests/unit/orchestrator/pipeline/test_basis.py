"""The stages before a search where no objective hears a teacher: none is made, and keys do not name one."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.loading import load_experiment
from orchestrator.pipeline import picking
from orchestrator.pipeline.basis.basis import Basis, basis_stages, recorded_basis
from orchestrator.pipeline.basis.data_stage import data_stage
from orchestrator.pipeline.context import Run
from orchestrator.pipeline.finished import run_key
from orchestrator.pipeline.preflight import preflight, preflight_key
from orchestrator.pipeline.preflight_networks import NetworkChecks
from orchestrator.pipeline.stages import Stages
from orchestrator.pipeline.teacher_stage import teacher_request
from orchestrator.pipeline.workers import Workers
from orchestrator.records.events import StageEvent, TrialStarted
from orchestrator.records.ledger import Ledger
from orchestrator.terminal.console import Console
from orchestrator.tracking.again import recorder_of
from tests.unit.trainables.data.image_folders import write_folder
from trainables.config import digest_of
from trainables.data import load_training
from trainables.data.splits import split_facts
from trainables.errors import ConfigError, DataError
from trainables.training.train_teacher import TeacherFacts

TASK = "tests.unit.orchestrator.pipeline.preflight_task"
EXPERIMENT = """\
name: task
data: DATA
student: {name: mlp, width: 4}
views: {weak: {views: 1, recipe: []}}
space: space.yaml
"""
LR = "training: {lr: {choice: [0.01, 0.1]}}\n"
DIGITS = "{name: digits, train_limit: 120}"
TEACHER = "teacher: {model: {name: mlp, width: 16}}\n"
OTHER = "teacher: {model: {name: mlp, width: 8}, training: {epochs: 2}}\n"

RunOf = Callable[..., Run]


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def run_of(tmp_path: Path, said: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> RunOf:
    """The run of a file, as each start of it sees it: with the ledger of the starts before."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(Workers, "teacher", lambda *_: pytest.fail("a teacher is made"))
    monkeypatch.setattr(Workers, "start_slots_early", lambda _: None)

    def start(more: str = "", *, data: str = DIGITS, objectives: str = "{ls: {}}") -> Run:
        (tmp_path / "space.yaml").write_text(f"name: own\nobjectives: {objectives}\n{LR}")
        (tmp_path / "task.yaml").write_text(EXPERIMENT.replace("DATA", data) + more)
        loaded, out = load_experiment(str(tmp_path / "task.yaml")), tmp_path / "out"
        ledger, console = Ledger(out), Console(out=said)
        return Run(
            loaded, out, ledger, Stages(ledger, console), Workers(loaded.config, out, console), console
        )

    return start


def make_teacher(run: Run) -> TeacherFacts:
    """What a run of a space with a teacher leaves in the ledger and beside it."""
    weights = run.out / "teacher" / "teacher.safetensors"
    weights.parent.mkdir(parents=True, exist_ok=True)
    weights.write_bytes(b"weights")
    facts = TeacherFacts(
        weights=str(weights),
        fingerprint="f" * 64,
        params=9,
        selection_accuracy=0.9,
        split=split_facts(load_training(run.experiment.data)),
    )
    key = teacher_request(run)[1]
    run.ledger.append(
        StageEvent(stage="teacher", key=key, status="finished", seconds=1.0, result=facts.plain())
    )
    return facts


def stages(run: Run) -> list[tuple[str, str]]:
    return [(event.stage, event.status) for event in run.ledger.events_of(StageEvent)]


def test_a_file_without_a_teacher_has_the_facts_of_its_data_found_once(
    run_of: RunOf, said: io.StringIO
) -> None:
    run = run_of()
    basis = basis_stages(run)
    assert basis == Basis(split_facts(load_training(run.experiment.data)))
    assert "120 training images of 10 classes, 1 x 8 x 8" in said.getvalue()
    again = run_of()
    assert basis_stages(again) == recorded_basis(again) == basis
    assert basis.search(run) == basis.search(again)
    assert stages(again) == [("data", "started"), ("data", "finished")]
    assert not (run.out / "teacher").exists()
    assert run.workbench(None, teacher=basis.teacher).online is None


def test_the_search_is_the_same_whatever_the_file_says_of_a_teacher(run_of: RunOf, said: io.StringIO) -> None:
    searches = set()
    for more in ("", TEACHER, OTHER, TEACHER + "cache: {precision: fp32}\n"):
        run = run_of(more)
        basis = basis_stages(run)
        assert (basis.teacher, basis.known_by) == (None, None)
        searches.add(basis.search(run))
    assert len(searches) == 1
    assert len(stages(run)) == 2
    assert (
        said.getvalue().count("no objective of space own hears a teacher: that of the file is not made") == 3
    )
    assert (
        basis_stages(run_of(objectives="{zipf: {}}")).search(run_of(objectives="{zipf: {}}")) not in searches
    )


def test_a_teacher_that_an_earlier_run_made_is_compared_with_and_in_no_key(
    run_of: RunOf, said: io.StringIO
) -> None:
    without = basis_stages(run_of()).search(run_of())
    teacher = make_teacher(run_of(TEACHER))
    run = run_of(TEACHER)
    basis = basis_stages(run)
    assert (basis.teacher, basis.known_by, basis.search(run)) == (teacher, None, without)
    assert "; the one that an earlier run made is compared with" in said.getvalue()
    assert run.workbench(None, teacher=basis.teacher) == run.workbench(None)
    Path(str(teacher.weights)).unlink()
    assert basis_stages(run_of(TEACHER)) == Basis(teacher.split)


def test_a_teacher_whose_place_another_took_is_not_compared_with(run_of: RunOf) -> None:
    teacher = make_teacher(run_of(TEACHER))
    run = run_of(OTHER)
    other = teacher.with_overrides(fingerprint="e" * 64).plain()
    key = teacher_request(run)[1]
    run.ledger.append(StageEvent(stage="teacher", key=key, status="finished", seconds=1.0, result=other))
    assert basis_stages(run_of(TEACHER)).teacher is None
    found = basis_stages(run_of(OTHER)).teacher
    assert found is not None
    assert found.fingerprint == "e" * 64


def begin(run: Run, search: str) -> None:
    event: dict[str, Any] = {"trial": "ls-1", "role": "search", "objective": "ls", "parameters": {}}
    run.ledger.append(TrialStarted(**event, search=search, spec={}))


def test_a_search_that_an_earlier_version_began_goes_on_under_the_key_that_names_a_teacher(
    run_of: RunOf,
) -> None:
    run = run_of(TEACHER)
    teacher = make_teacher(run)
    experiment = run.experiment
    former = digest_of(  # as that version wrote it
        {
            "teacher": teacher.fingerprint,
            "data": teacher.split.plain(),
            "cache": None,
            "views": experiment.views.plain(),
            "student": experiment.student.network.plain(),
            "training": experiment.training.plain(),
            "space": run.space.plain(),
            "seed": experiment.seed,
        }
    )
    begin(run, former)
    run = run_of(TEACHER)
    basis = basis_stages(run)
    assert basis == recorded_basis(run) == Basis(teacher.split, teacher, teacher)
    assert basis.search(run) == former
    assert ("data", "started") not in stages(run)
    Path(str(teacher.weights)).unlink()
    later = basis_stages(run_of(TEACHER))
    assert (later.teacher, later.search(run)) == (None, former)


def test_a_finished_search_can_be_picked_from_without_a_teacher(run_of: RunOf) -> None:
    run = run_of()
    with pytest.raises(ConfigError, match="there is nothing to pick"):
        picking.require_search(run)
    key = picking.search_stage_key(run, basis_stages(run).search(run))
    run.ledger.append(StageEvent(stage="search", key=key, status="finished", seconds=1.0, result={}))
    picking.require_search(run_of())
    picking.require_search(run_of(TEACHER))


def test_logits_that_were_never_imported_are_not_asked_for(run_of: RunOf) -> None:
    basis = basis_stages(run_of("teacher: {imported: true}\n"))
    assert (basis.teacher, basis.known_by) == (None, None)


def test_pictures_that_come_make_another_search(run_of: RunOf, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pictures", per_class=4)
    data = "{name: image_folder, root: pictures, image_size: 8, skip_unreadable: true}"
    first = basis_stages(run_of(data=data))
    assert basis_stages(run_of(data=data)) == first
    picture = next((folder / "train").rglob("*.*"))
    for number in range(8):  # some are of the selection split
        picture.with_name(f"more{number}{picture.suffix}").write_bytes(picture.read_bytes())
    second = basis_stages(run_of(data=data))
    assert first.split.n_train < second.split.n_train
    assert second.search(run_of(data=data)) != first.search(run_of(data=data))


def test_images_that_cannot_be_read_are_counted(run_of: RunOf, tmp_path: Path, said: io.StringIO) -> None:
    folder = write_folder(tmp_path / "pictures", per_class=4)
    next((folder / "train").rglob("*.*")).write_bytes(b"")
    split = data_stage(
        run_of(data="{name: image_folder, root: pictures, image_size: 8, skip_unreadable: true}")
    )
    assert split.left_out == 1
    assert "1 unreadable images are left out (data.skip_unreadable)" in said.getvalue()


def test_data_of_a_factory_that_a_worker_finds_to_be_others_are_refused(
    run_of: RunOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Workers, "split", lambda _, data: split_facts(load_training(data)))
    found = {True: f'{{factory: "{TASK}:dataset"}}', False: f'{{factory: "{TASK}:drawn_anew"}}'}
    for is_sound, data in found.items():
        run = run_of(data=data)
        here = load_training(run.experiment.data).digest
        run.ledger.append(
            StageEvent(
                stage="preflight", key="k", status="finished", seconds=1.0, result={"data_digest": here}
            )
        )
        if is_sound:
            assert data_stage(run).data_digest == here
            continue
        with pytest.raises(DataError, match=r"other samples in each process .* students are compared on"):
            data_stage(run)


@pytest.mark.parametrize(
    "more",
    [
        "",
        f'teacher: {{model: {{factory: "{TASK}:not_there"}}}}\n',
        f'teacher: {{model: {{factory: "{TASK}:raising"}}, pretrained: true}}\n',
        "teacher: {imported: true}\n",
    ],
)
def test_preflight_looks_at_no_teacher_that_nobody_hears(
    run_of: RunOf, monkeypatch: pytest.MonkeyPatch, more: str
) -> None:
    monkeypatch.setattr(NetworkChecks, "export", lambda *_: None)
    monkeypatch.setattr(NetworkChecks, "teacher", lambda _: pytest.fail("the teacher is looked at"))
    run = run_of(more)
    assert preflight(run).problems == []
    assert preflight_key(run) == preflight_key(run_of(more))


def test_a_finished_run_is_known_without_a_teacher(run_of: RunOf) -> None:
    run = run_of()
    key = run_key(run.loaded, run.ledger)
    assert key == run_key(run_of().loaded, run.ledger)
    assert key != run_key(run_of(objectives="{zipf: {}}").loaded, run.ledger)


@pytest.mark.parametrize(("objectives", "whose"), [("{ls: {}}", ""), ("{ls: {}, kd: {}}", " of one teacher")])
def test_the_record_speaks_of_a_teacher_where_one_is_heard(
    run_of: RunOf, monkeypatch: pytest.MonkeyPatch, objectives: str, whose: str
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(
        "orchestrator.tracking.again.MlflowRecorder", lambda *_, parent, **__: told.append(parent)
    )
    run = run_of(TEACHER * bool(whose), objectives=objectives)
    recorder_of(run.loaded, run.ledger, run.out)
    (parent,) = told
    assert parent.summary.startswith(f"Students{whose}, searched over ls")
    assert any(name.startswith("teacher") for name in parent.params()) == bool(whose)
