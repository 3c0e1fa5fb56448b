"""Several teachers: each is made as one would be, and together they are one with an identity of its own."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from orchestrator.config.loading import load_experiment
from orchestrator.pipeline.cache_stage import cache_request
from orchestrator.pipeline.context import Run
from orchestrator.pipeline.finished import run_key
from orchestrator.pipeline.preflight import preflight
from orchestrator.pipeline.stages import Stages
from orchestrator.pipeline.teacher_stage import (
    known_teacher,
    recorded_teacher,
    teacher_request,
    teacher_stage,
)
from orchestrator.pipeline.teachers.ensemble import each_run
from orchestrator.pipeline.workers import Workers
from orchestrator.records.ledger import Ledger
from orchestrator.terminal.console import Console
from tests.unit.trainables.models.onnx_files import write
from trainables.cache.format.planning import claim_folder
from trainables.cache.format.records import Shard, ShardRecord
from trainables.cache.format.storage import open_place
from trainables.config import KeptEnsemble
from trainables.data import load_training
from trainables.errors import ConfigError, StillhouseError
from trainables.teacher.loading import load_teacher
from trainables.teacher.selection_answers import NAME, answers_in, read_answers
from trainables.teacher.shard_worker import TeacherWorker
from trainables.training.measure_ensemble import EnsembleRequest, measure_ensemble
from trainables.training.train_teacher import make_teacher
from trainables.views.normalise import normalise

SMALL = "{model: {name: mlp, width: 16}, training: {epochs: 3, lr: 0.05}}"
EXPERIMENT = """\
name: several
data: {name: digits, train_limit: 300}
teachers:
  - FIRST
  - SECOND
student: {name: mlp, width: 4}
views: {weak: {views: 1, recipe: []}}
space: kd
"""
SHARD = Shard(bank="weak", view=0, index=0, first=0, rows=240)

Written = Callable[..., Path]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    def at(first: str = SMALL, second: str = SMALL, *, more: str = "") -> Path:
        path = tmp_path / "several.yaml"
        path.write_text(EXPERIMENT.replace("FIRST", first).replace("SECOND", second) + more)
        return path

    return at


@pytest.fixture(autouse=True)
def _made_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, without Ray."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(Workers, "teacher", lambda _, request, tell: make_teacher(request, tell))
    monkeypatch.setattr(Workers, "ensemble", lambda _, request: measure_ensemble(request))
    monkeypatch.setattr(Workers, "start_slots_early", lambda _: None)
    monkeypatch.setattr("tempfile.tempdir", None)
    torch.set_num_threads(threads)


def run_of(path: Path, out: io.StringIO | None = None) -> Run:
    loaded, folder = load_experiment(str(path)), path.parent / "out"
    ledger, console = Ledger(folder), Console(out=out or io.StringIO())
    return Run(
        loaded, folder, ledger, Stages(ledger, console), Workers(loaded.config, folder, console), console
    )


def test_teachers_of_the_same_words_are_trained_with_seeds_and_folders_of_their_own(
    written: Written,
) -> None:
    first, second = (teacher_request(run) for run in each_run(run_of(written())))
    assert first[0].seed != second[0].seed
    assert [Path(request.folder).name for request, _ in (first, second)] == ["1", "2"]
    assert first[1] != second[1]


def test_together_they_are_as_good_as_the_mean_of_their_probabilities(written: Written) -> None:
    out = io.StringIO()
    run = run_of(written(second=SMALL.replace("}}", "}, weight: 3}")), out)
    facts = teacher_stage(run)
    kept, data = run.kept(facts), load_training(run.experiment.data)
    assert isinstance(kept, KeptEnsemble)
    assert kept.shares == (0.25, 0.75)
    images, labels = normalise(data.selection.images[:], data.mean, data.std), data.selection.labels
    with torch.no_grad():
        parts = [load_teacher(member, data).eval()(images).softmax(dim=1) for member in kept.members]
        together = load_teacher(kept, data).eval()(images)
    mean = 0.25 * parts[0] + 0.75 * parts[1]
    torch.testing.assert_close(together.softmax(dim=1), mean)
    right = float((mean.argmax(dim=1) == labels).double().mean())
    assert facts.selection_accuracy == pytest.approx(right, abs=1e-6)
    assert facts.params == sum(member.params or 0 for member in facts.members)
    told = out.getvalue()
    assert all(line in told for line in ("teacher 1 ", "teacher 2 ", "teachers together "))


def test_what_was_made_is_known_again_and_not_made_again(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written()
    facts = teacher_stage(run_of(path))
    for name in ("teacher", "ensemble"):
        monkeypatch.setattr(Workers, name, lambda *_: pytest.fail("made again"))
    again = run_of(path)
    assert teacher_stage(again) == facts
    assert recorded_teacher(again) == facts
    assert known_teacher(again) == facts


def test_their_answers_to_the_selection_split_are_kept_once_for_all_of_them(written: Written) -> None:
    run = run_of(written())
    facts = teacher_stage(run)
    kept = answers_in(run.out / "teacher", teacher=facts.fingerprint, data=facts.split.data_digest)
    assert [path.parent for path in run.out.rglob(NAME)] == [run.out / "teacher"]
    data, network = load_training(run.experiment.data), run.kept(facts)
    assert network is not None
    with torch.no_grad():
        images = normalise(data.selection.images[:], data.mean, data.std)
        together = load_teacher(network, data).eval()(images)
    torch.testing.assert_close(read_answers(kept, data), together, rtol=1e-5, atol=1e-5)


def test_none_is_known_before_all_are_made_unless_all_are_files(written: Written, tmp_path: Path) -> None:
    assert known_teacher(run_of(written())) is None
    for name in "ab":
        write(tmp_path / f"{name}.onnx", last="Softmax" if name == "a" else None)
    files = [f"{{checkpoint: {name}.onnx, normalisation: data}}" for name in "ab"]
    run = run_of(written(*files))
    known = known_teacher(run)
    assert known is not None
    kept = run.kept(known)
    assert isinstance(kept, KeptEnsemble)
    request = EnsembleRequest(
        network=kept, data=run.experiment.data, batch_size=64, folder=str(tmp_path / "together")
    )
    measured = measure_ensemble(request)
    assert known.fingerprint == measured.fingerprint


def test_its_cache_is_computed_by_all_of_them(written: Written) -> None:
    run = run_of(written())
    facts = teacher_stage(run)
    asked = cache_request(run, facts)
    claim_folder(open_place(asked.uri), asked.origin)
    worker = TeacherWorker(asked.plain(), asked.uri, asked.origin.plain())
    (answer,) = worker({"shards": [json.dumps([SHARD.plain()])]})["answer"]
    assert ShardRecord.from_plain(json.loads(answer)[0]).shard == SHARD


def test_weights_rule_and_members_make_another_teacher(written: Written) -> None:
    names = set()
    for more in ("", "combine: logits\n"):
        for weight in ("", ", weight: 2"):
            run = run_of(written(SMALL.replace("}}", "}" + weight + "}"), more=more))
            names.add(teacher_stage(run).fingerprint)
    names.add(teacher_stage(run_of(written(SMALL.replace("16", "12")))).fingerprint)
    assert len(names) == 5


def test_a_run_is_known_by_the_files_of_all_of_them(written: Written, tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / f"{name}.onnx")
    path = written(*(f"{{checkpoint: {name}.onnx, normalisation: data}}" for name in "ab"))
    run = run_of(path)
    before = run_key(run.loaded, run.ledger)
    assert run_key(run_of(path).loaded, run.ledger) == before
    write(tmp_path / "b.onnx", last="Softmax")
    assert run_key(run.loaded, run.ledger) != before


def test_an_error_names_the_teacher(written: Written, tmp_path: Path) -> None:
    write(tmp_path / "five.onnx", n_outputs=5)
    path = written(second="{checkpoint: five.onnx, normalisation: data}")
    with pytest.raises(StillhouseError, match=r"^teachers, number 2: .*five\.onnx has 5 outputs"):
        teacher_stage(run_of(path))
    (problem,) = preflight(run_of(path)).problems
    assert problem.startswith("teachers, number 2: ")


@pytest.mark.parametrize(
    ("second", "more", "message"),
    [
        (SMALL, f"teacher: {SMALL}\n", "give either `teacher`, or `teachers`, a list of two or more"),
        ("{imported: true}", "", "`imported` logits are of one teacher"),
        (SMALL.replace("}}", "}, weight: 0}"), "", "weight: found 0; allowed: a number, above 0"),
        (
            "{checkpoint: none.onnx}",
            "",
            r"several\.yaml:5: .*found 'none\.onnx'; allowed: an existing",
        ),
        (SMALL, "combine: votes\n", "combine: found 'votes'; allowed: .*probabilities"),
        (
            SMALL,
            "cache: {embedding: true}\n",
            "found true; several teachers have no one embedding",
        ),
    ],
)
def test_what_several_teachers_cannot_be_is_refused(
    written: Written, second: str, more: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_experiment(str(written(second=second, more=more)))


def test_a_list_of_one_teacher_is_refused(written: Written) -> None:
    path = written()
    path.write_text(path.read_text().replace(f"  - {SMALL}\n", "", 1))
    with pytest.raises(ConfigError, match="teachers: "):
        load_experiment(str(path))
