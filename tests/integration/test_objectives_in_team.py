"""Objectives with a state of their own among several ranks: real processes, real gloo, no Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.integration.ranks import keep, run_ranks
from tests.unit.trainables.cache.tiny_caches import TinyCache
from tests.unit.trainables.training.small_courses import (
    SHORT,
    VIEWS,
    same_weights,
    separable_data,
    small_student,
    small_workbench,
    untimed,
    weights_of,
)
from trainables.config import Precision
from trainables.config.objectives import CtkdConfig, PskdConfig
from trainables.data.splits import split_facts
from trainables.errors import TrialFailed
from trainables.training.loop import Course, train
from trainables.training.ranks import SOLO, DdpTeam, Team


def kitchen(folder: Path) -> TinyCache:
    data = separable_data()
    teacher = small_student(seed=9)
    return TinyCache(folder, data, teacher, split_facts(data), views=VIEWS, precision=Precision.FP32)


def plain_student() -> nn.Module:
    """No batch statistics, no dropout: nothing that depends on how a batch is shared out."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 3))


def trained(team: Team, folder: Path) -> dict[str, Any]:
    tiny, told = kitchen(folder), list[dict[str, float]]()
    # Seven rows are 4 and 3 for two ranks.
    course = Course(
        plain_student(), CtkdConfig(curriculum_epochs=2), SHORT.with_overrides(batch_size=7), 3, team=team
    )
    workbench = small_workbench(tiny.data, cache=tiny.open())
    train(course, workbench, on_epoch=lambda _, metrics: told.append(untimed(metrics)))
    return {"weights": weights_of(course.model), "metrics": told}


def train_together(folder: Path, lab_folder: str) -> None:
    keep(folder, trained(DdpTeam(), Path(lab_folder)))


def test_two_ranks_learn_the_temperature_that_one_learns(tmp_path: Path) -> None:
    kitchen(tmp_path / "lab").build()
    ranks = run_ranks(train_together, 2, tmp_path / "ranks", str(tmp_path / "lab"))
    alone = trained(SOLO, tmp_path / "lab")
    assert same_weights(ranks[0]["weights"], ranks[1]["weights"])
    for name, value in alone["weights"].items():
        torch.testing.assert_close(ranks[0]["weights"][name], value, rtol=1e-4, atol=1e-5)
    temperatures = [
        [metrics["train/temperature"] for metrics in course["metrics"]] for course in (alone, ranks[0])
    ]
    assert temperatures[0] == pytest.approx(temperatures[1], rel=1e-4)
    assert len(set(temperatures[0])) == SHORT.epochs


def try_a_table(folder: Path) -> None:
    course = Course(plain_student(), PskdConfig(), SHORT, 3, team=DdpTeam())
    try:
        train(course, small_workbench(), on_epoch=lambda *_: None)
    except TrialFailed as error:
        keep(folder, str(error))


def test_a_table_by_sample_is_refused_on_every_rank(tmp_path: Path) -> None:
    messages = run_ranks(try_a_table, 2, tmp_path)
    assert messages[0] == messages[1]
    assert "the 2 workers of a slot would fill apart from each other" in messages[0]
