"""Where a run has the answers to the selection split from, and what it says where there are none."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orchestrator.cache_tools.transfer import import_file
from orchestrator.config.loading import load_experiment
from orchestrator.pipeline.context import Run
from orchestrator.pipeline.stages import Stages
from orchestrator.pipeline.teacher_stage import teacher_stage
from orchestrator.pipeline.teachers.selection_answers import selection_answers
from orchestrator.pipeline.workers import Workers
from orchestrator.records.ledger import Ledger
from orchestrator.terminal.console import Console
from trainables.config import DataConfig
from trainables.config.data import DataName
from trainables.data import load_training
from trainables.slots.lru_cache import LruCache
from trainables.slots.messages import Stage
from trainables.slots.stages.stages import STAGES
from trainables.teacher.loading import load_teacher
from trainables.teacher.selection_answers import NAME, read_answers
from trainables.views.normalise import normalise

EXPERIMENT = """\
name: compared
data: {name: digits, train_limit: 100}
teacher: {model: {name: mlp, width: 8}, training: {epochs: 1}}
student: {name: mlp, width: 4}
views: {weak: {views: 1, recipe: []}}
space: kd
"""
IMPORTED = EXPERIMENT.replace("{model: {name: mlp, width: 8}, training: {epochs: 1}}", "{imported: true}")
DATA = DataConfig(name=DataName.DIGITS, train_limit=100)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What workers do is done here: no Ray is started."""

    def make(_self: Workers, stage: Stage, request: Any, on_epoch: Any = lambda *_: None) -> dict[str, Any]:
        return STAGES[stage](request, on_epoch, LruCache(1))

    monkeypatch.setattr(Workers, "made", make)
    for name in ("start_slots", "start_slots_early"):
        monkeypatch.setattr(Workers, name, lambda _self: None)


def run_of(folder: Path, text: str = EXPERIMENT, out: io.StringIO | None = None) -> Run:
    path = folder / "compared.yaml"
    path.write_text(text + f"out: {folder / 'out'}\n")
    loaded, place = load_experiment(str(path)), folder / "out"
    ledger, console = Ledger(place), Console(out=out or io.StringIO())
    return Run(
        loaded, place, ledger, Stages(ledger, console), Workers(loaded.config, place, console), console
    )


def test_the_stage_of_the_teacher_leaves_them_and_nobody_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tmp_path)
    teacher = teacher_stage(run)
    monkeypatch.setattr(Workers, "made", lambda *_: pytest.fail("asked again"))
    kept = selection_answers(run, teacher, needed=True)
    assert kept is not None
    assert (kept.teacher, kept.data) == (teacher.fingerprint, teacher.split.data_digest)
    data, network = load_training(DATA), run.kept(teacher)
    assert network is not None
    with torch.no_grad():
        live = load_teacher(network, data).eval()(normalise(data.selection.images[:], data.mean, data.std))
    torch.testing.assert_close(read_answers(kept, data), live, rtol=1e-5, atol=1e-5)
    assert teacher.selection_accuracy == pytest.approx(
        float((live.argmax(dim=1) == data.selection.labels).double().mean())
    )


@pytest.mark.parametrize("damaged", [False, True])
def test_a_teacher_of_an_earlier_version_is_asked_again_where_students_are_still_trained(
    tmp_path: Path, damaged: bool
) -> None:
    run = run_of(tmp_path)
    teacher = teacher_stage(run)
    file = tmp_path / "out" / "teacher" / NAME
    kept, data = selection_answers(run, teacher, needed=True), load_training(DATA)
    assert kept is not None
    before_NC = read_answers(kept, data).clone()
    if damaged:
        file.write_bytes(file.read_bytes()[:-20])
    else:
        file.unlink()
    assert selection_answers(run, teacher, needed=False) is None  # a pick loads no teacher
    assert file.exists() == damaged
    assert selection_answers(run, teacher, needed=True) == kept
    assert torch.equal(read_answers(kept, data), before_NC)


def test_a_teacher_that_cannot_be_asked_is_told_and_ends_nothing(tmp_path: Path) -> None:
    out = io.StringIO()
    run = run_of(tmp_path, out=out)
    teacher = teacher_stage(run)
    for name in (NAME, "teacher.safetensors"):
        (tmp_path / "out" / "teacher" / name).unlink()
    assert selection_answers(run, teacher, needed=True) is None
    assert "students are not compared with the teacher epoch by epoch (agreement, KL): " in out.getvalue()
    assert "no checkpoint" in out.getvalue()


@pytest.mark.parametrize("of_selection", [False, True])
def test_imported_logits_may_have_those_of_the_selection_split(tmp_path: Path, of_selection: bool) -> None:
    out, data = io.StringIO(), load_training(DATA)
    run = run_of(tmp_path, IMPORTED, out)
    splits = [data.train, *([data.selection] if of_selection else [])]
    ids, labels = (
        torch.cat([getattr(split, name) for split in splits]).numpy() for name in ("ids", "labels")
    )
    logits = 5 * np.eye(10, dtype=np.float32)[labels]
    logits += np.random.default_rng(0).normal(size=logits.shape).astype(np.float32)
    np.savez(tmp_path / "logits.npz", ids=ids, logits=logits)
    import_file(tmp_path / "logits.npz", run.loaded, run.console)
    out.truncate(0)
    kept = selection_answers(run, teacher_stage(run), needed=True)
    told = out.getvalue().count("its logits of the selection split were not imported")
    assert (kept is None, told) == ((False, 0) if of_selection else (True, 1))
    if kept is not None:
        assert np.array_equal(read_answers(kept, data).numpy(), logits[len(data.train.ids) :])
