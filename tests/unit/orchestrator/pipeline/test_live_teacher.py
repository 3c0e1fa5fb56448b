"""The run says which objectives ask the teacher beside the student, and what that costs."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from orchestrator.config.loading import load_experiment
from orchestrator.pipeline.cache_stage import unmade_teacher
from orchestrator.pipeline.context import Run
from orchestrator.pipeline.live_teacher import tell_live_teacher
from orchestrator.pipeline.stages import Stages
from orchestrator.pipeline.workers import Workers
from orchestrator.records.ledger import Ledger
from orchestrator.terminal.console import Console
from tests.unit.trainables.cache.tiny_caches import TinyCache
from tests.unit.trainables.objective_variants import staged_network
from tests.unit.trainables.training.small_courses import SHORT, VIEWS, separable_data, small_workbench
from trainables.config.objectives import FitnetConfig
from trainables.data import load_training
from trainables.data.splits import split_facts
from trainables.teacher.online import OnlineTeacher
from trainables.training.course import Course
from trainables.training.loaded.teacher_answers import CacheBesideTeacher
from trainables.training.loop import train

EXPERIMENT = """\
name: told
data: {name: digits, train_limit: 64}
teacher: {model: {name: resnet8, width: 4}, training: {epochs: 1}}
student: {name: resnet8, width: 4}
views: {weak: {views: 3, recipe: []}}
CACHE
space: space.yaml
"""
SPACE = """\
name: s
objectives:
  fitnet: {hint_weight: {uniform: [1, 200]}}
  rkd: {angle_weight: {uniform: [2, 100]}}
"""

TellOf = Callable[[str], str]


@pytest.fixture
def tell_of(tmp_path: Path) -> TellOf:
    def tell(cache: str) -> str:
        path = tmp_path / "told.yaml"
        path.write_text(EXPERIMENT.replace("CACHE", cache))
        (tmp_path / "space.yaml").write_text(SPACE)
        out = io.StringIO()
        loaded, console, folder = load_experiment(str(path)), Console(out=out), tmp_path / "out"
        ledger = Ledger(folder)
        run = Run(
            loaded, folder, ledger, Stages(ledger, console), Workers(loaded.config, folder, console), console
        )
        tell_live_teacher(run, unmade_teacher(load_training(loaded.config.data)))
        ledger.close()
        return " ".join(out.getvalue().split())

    return tell


def test_who_asks_it_for_what_and_what_keeping_would_take_is_told(tell_of: TellOf) -> None:
    told = tell_of("")
    assert told.startswith("fitnet: the teacher runs beside the student, a pass of it in each step")
    assert "no cache keeps its stage2; `cache: {features: [stage2]}` would keep them once" in told
    pixels_kb = 64 * 3 * math.prod((8, 4, 4)) * 2 / 1000  # fp16; the second of three stages halves 8x8
    size_kb = float(re.findall(r"in ([0-9.]+) kB$", told)[0])
    assert pixels_kb < size_kb < 1.2 * pixels_kb  # with what a file has beside them, as `cache plan` tells


@pytest.mark.parametrize("cache", ["cache: {features: [stage2]}", "cache: {online: true}"])
def test_nothing_is_told_where_a_cache_keeps_all_or_there_is_none(cache: str, tell_of: TellOf) -> None:
    assert tell_of(cache) == ""


def test_an_epoch_says_how_long_the_teacher_beside_took_and_no_other_does(tmp_path: Path) -> None:
    data, teacher = separable_data(), staged_network(seed=9)
    tiny = TinyCache(tmp_path, data, teacher, split_facts(data), views=VIEWS)
    tiny.build()
    online = OnlineTeacher(tiny.live(), VIEWS)
    kept = tiny.but(folder=tmp_path / "kept", features={"weak": ("stage2",)})
    kept.build()
    sources = (CacheBesideTeacher(tiny.open(), lambda: online), kept.open())
    told: list[dict[str, float]] = []
    for source in sources:
        course = Course(staged_network(), FitnetConfig(), SHORT.with_overrides(epochs=1), 3)
        torch.manual_seed(0)
        train(course, small_workbench(data, cache=source), on_epoch=lambda _, metrics: told.append(metrics))
    beside, cached = told
    assert 0 < beside["train/teacher_seconds"] < beside["seconds"]
    assert "train/teacher_seconds" not in cached
