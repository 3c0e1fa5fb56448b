"""A search is another one where students hear other features of the teacher, and only there."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.config.loading import load_experiment
from orchestrator.pipeline.cache_stage import unmade_teacher
from orchestrator.pipeline.context import Run
from orchestrator.pipeline.stages import Stages
from orchestrator.pipeline.workers import Workers
from orchestrator.records.ledger import Ledger
from orchestrator.terminal.console import Console
from trainables.data import load_training

EXPERIMENT = """\
name: heard
data: {name: digits, train_limit: 60}
teacher: {model: {name: resnet8, width: 4TEACHER}, training: {epochs: 1}}
student: {name: resnet8, width: 4, cosine_head: 16}
cache: {batch_size: 64CACHE}
views: {weak: {views: 1, recipe: []}}
space: space.yaml
"""
SPACES = {
    "fitnet": "hint_weight: {uniform: [1, 200]}",
    "at": "at_weight: {uniform: [1, 2000]}",
    "rkd": "angle_weight: {uniform: [2, 100]}",
    "cbd": "alpha: {uniform: [0.1, 0.9]}",
    "kd": "kd_weight: {uniform: [0.5, 4]}",
}
HERE, THERE = (
    f", features: {{stage1: {first}, stage2: {second}, stage3: layer3}}"
    for first, second in (("layer1", "layer2"), ("layer2", "layer3"))
)

KeyOf = Callable[..., str]


@pytest.fixture
def key_of(tmp_path: Path) -> KeyOf:
    def key(objective: str, *, teacher: str = "", cache: str = "") -> str:
        path = tmp_path / "heard.yaml"
        path.write_text(EXPERIMENT.replace("TEACHER", teacher).replace("CACHE", cache))
        space = f"name: s\nobjectives: {{{objective}: {{{SPACES[objective]}}}}}\n"
        (tmp_path / "space.yaml").write_text(space)
        loaded, console = load_experiment(str(path)), Console(out=io.StringIO())
        ledger, folder = Ledger(tmp_path / "out"), tmp_path / "out"
        workers = Workers(loaded.config, folder, console)
        run = Run(loaded, folder, ledger, Stages(ledger, console), workers, console)
        facts = unmade_teacher(load_training(loaded.config.data))
        found = run.search_key(facts.split, facts, None)
        ledger.close()
        return found

    return key


@pytest.mark.parametrize("objective", ["fitnet", "at"])
def test_other_parts_of_the_teacher_make_another_search(objective: str, key_of: KeyOf) -> None:
    assert key_of(objective, teacher=HERE) != key_of(objective, teacher=THERE)
    assert key_of(objective, teacher=HERE) != key_of(objective)


def test_parts_that_nobody_asks_for_make_none(key_of: KeyOf) -> None:
    assert key_of("rkd", teacher=HERE) == key_of("rkd", teacher=THERE) == key_of("rkd")
    assert key_of("kd", teacher=HERE) == key_of("kd")


def test_maps_from_the_cache_and_from_the_teacher_beside_make_two_searches(key_of: KeyOf) -> None:
    """A cache keeps them in fp16."""
    assert key_of("fitnet") != key_of("fitnet", cache=", features: [stage2]")
    assert key_of("rkd") == key_of("rkd", cache=", features: [stage2]")


def test_another_precision_of_features_makes_another_search_where_some_are_heard(key_of: KeyOf) -> None:
    assert key_of("rkd") != key_of("rkd", cache=", feature_precision: fp32")
    assert key_of("kd") == key_of("kd", cache=", feature_precision: fp32")


def test_what_an_objective_asks_for_anyway_may_be_named_or_not(key_of: KeyOf) -> None:
    assert key_of("cbd") == key_of("cbd", cache=", embedding: true")
    assert key_of("cbd") == key_of("cbd", cache=", features: [embedding]")
