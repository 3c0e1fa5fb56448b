"""Students of a pack beside the same students alone."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.trainables.training.packs.packed_courses import (
    KD,
    again,
    alone,
    apart,
    course,
    states,
    taught_workbench,
    together,
)
from tests.unit.trainables.training.small_courses import SHORT
from trainables.config import (
    CeConfig,
    CrldConfig,
    DistConfig,
    DkdConfig,
    KdConfig,
    LsConfig,
    MlldConfig,
    ObjectiveBase,
)
from trainables.config.logit_objectives import AektConfig, CkdConfig, ClkdConfig
from trainables.training.course import TrainingResult
from trainables.training.packs.networks import Form
from trainables.training.workbench import Workbench

pytestmark = pytest.mark.usefixtures("one_thread")

STEP = 1e-5
"""Relative, after a step: what rounding in fp32 leaves."""
ONE = SHORT.with_overrides(epochs=1, batch_size=44)
"""A single step."""

RECIPES: dict[str, list[dict[str, Any]]] = {
    "sgd": [{"lr": 0.05}, {"lr": 0.1, "momentum": 0.5}, {"lr": 0.02, "weight_decay": 0.01}],
    "nesterov": [{"nesterov": True}, {"nesterov": True, "momentum": 0.8, "lr": 0.01}],
    "adamw": [{"optimizer": "adamw", "lr": 0.01}, {"optimizer": "adamw", "lr": 0.002, "weight_decay": 0.1}],
    "clipped": [{"clip_norm": 0.1}, {"clip_norm": 0.5, "lr": 0.1}],
    "mean of weights": [{"ema": 0.9}, {"ema": 0.5}],
    "schedules": [
        {"schedule": "constant"},
        {"schedule": "step", "milestones": [2]},
        {"schedule": "cosine", "warmup_epochs": 1.0},
    ],
}
OBJECTIVES: dict[str, list[ObjectiveBase]] = {
    "ce": [CeConfig(), CeConfig()],
    "ls": [LsConfig(smoothing=0.1), LsConfig(smoothing=0.3)],
    "kd": [KD, KdConfig(temperature=5.0, kd_weight=3.0, ce_weight=0.5), KdConfig()],
    "lskd": [KdConfig(standardise=True), KdConfig(standardise=True, temperature=3.0)],
    "dkd": [DkdConfig(), DkdConfig(alpha=2.0, beta=3.0)],
    "dist": [DistConfig(), DistConfig(beta=1.0, temperature=2.0)],
    "aekt": [AektConfig(), AektConfig(temperature=2.0)],
    "clkd": [ClkdConfig(), ClkdConfig(beta=0.5)],
    "ckd": [CkdConfig(), CkdConfig(temperature=3.0)],
    "mlld": [MlldConfig(), MlldConfig(temperature=3.0, kd_weight=0.3)],
    "crld": [CrldConfig(weak_threshold=0.3, strong_threshold=0.2), CrldConfig(cross_weight=0.5)],
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return taught_workbench(tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("changes", RECIPES.values(), ids=RECIPES)
def test_a_packed_student_is_the_lone_one_to_rounding(
    bench: Workbench, form: Form, changes: list[dict[str, Any]]
) -> None:
    """Every lane has numbers of its own, weights and order of batches too; five epochs of five steps."""
    courses = [course(seed, training=SHORT.with_overrides(**own)) for seed, own in enumerate(changes)]
    lone = again(courses)
    expected = [alone(own, bench) for own in lone]
    found, _ = together(courses, bench, form)
    for own, other in zip(found, expected, strict=True):
        assert own.epochs == other.epochs
        assert [e.best_epoch for e in own.ends if isinstance(e, TrainingResult)] == [
            e.best_epoch for e in other.ends if isinstance(e, TrainingResult)
        ]
        for one, two in zip(own.metrics, other.metrics, strict=True):
            assert one.keys() - {"train/lanes"} == two.keys()
            for name in two.keys() - {"seconds", "train/images_per_s"}:
                assert one[name] == pytest.approx(two[name], rel=1e-3, abs=1e-4), name
    for one, other in zip(states(courses), states(lone), strict=True):
        assert apart(one, other) < 1e-3


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("objectives", OBJECTIVES.values(), ids=OBJECTIVES)
def test_a_step_of_every_objective_is_that_of_a_lone_student(
    bench: Workbench, form: Form, objectives: list[ObjectiveBase]
) -> None:
    courses = [course(seed, objective, ONE) for seed, objective in enumerate(objectives)]
    lone = again(courses)
    expected = [alone(own, bench) for own in lone]
    found, _ = together(courses, bench, form)
    for one, other in zip(states(courses), states(lone), strict=True):
        assert apart(one, other) < STEP
    for told, other_told in zip(found, expected, strict=True):
        for name, value in other_told.metrics[0].items():
            if name.startswith("train/") and name != "train/images_per_s":
                assert told.metrics[0][name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
