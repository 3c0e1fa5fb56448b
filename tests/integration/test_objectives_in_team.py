"""Objectives with a state of their own among several ranks: real processes, real gloo, no Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.integration.ranks import keep, run_ranks
from tests.unit.trainables.cache.tiny_caches import EMBEDDED, TinyCache
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
from trainables.config.objectives import CrdConfig, CtkdConfig, PskdConfig
from trainables.data.splits import split_facts
from trainables.signals import Objective
from trainables.training.course import Course
from trainables.training.loop import train
from trainables.training.objective_state import SharedTables
from trainables.training.ranks import SOLO, DdpTeam, Team, average_gradients


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


def trained_with_table(team: Team) -> dict[str, Any]:
    told = list[dict[str, float]]()
    course = Course(plain_student(), PskdConfig(), SHORT.with_overrides(batch_size=7), 3, team=team)
    train(course, small_workbench(), on_epoch=lambda _, metrics: told.append(untimed(metrics)))
    return {"weights": weights_of(course.model), "metrics": told}


def train_with_table(folder: Path) -> None:
    keep(folder, trained_with_table(DdpTeam()))


def test_two_ranks_fill_one_table_by_sample(tmp_path: Path) -> None:
    ranks = run_ranks(train_with_table, 2, tmp_path)
    alone = trained_with_table(SOLO)
    assert same_weights(ranks[0]["weights"], ranks[1]["weights"])
    for name, value in alone["weights"].items():
        torch.testing.assert_close(ranks[0]["weights"][name], value, rtol=1e-4, atol=1e-5)
    answered = [metrics["train/answered"] for metrics in ranks[0]["metrics"]]
    assert answered == pytest.approx([metrics["train/answered"] for metrics in alone["metrics"]])
    assert answered[-1] > 0.9


def trained_with_banks(team: Team, folder: Path) -> dict[str, Any]:
    tiny, told = kitchen(folder).but(features=EMBEDDED), list[dict[str, float]]()
    objective, recipe = CrdConfig(dim=8), SHORT.with_overrides(batch_size=7)
    course = Course(plain_student(), objective, recipe, 3, team=team)
    workbench = small_workbench(tiny.data, cache=tiny.open())
    train(course, workbench, on_epoch=lambda _, metrics: told.append(untimed(metrics)))
    return {"weights": weights_of(course.model), "metrics": told}


def train_with_banks(folder: Path, lab_folder: str) -> None:
    keep(folder, trained_with_banks(DdpTeam(), Path(lab_folder)))


def test_two_ranks_train_one_student_with_crd(tmp_path: Path) -> None:
    """The draws differ by rank, so that the loss is near that of one worker, and not the same."""
    kitchen(tmp_path / "lab").but(features=EMBEDDED).build()
    ranks = run_ranks(train_with_banks, 2, tmp_path / "ranks", str(tmp_path / "lab"))
    alone = trained_with_banks(SOLO, tmp_path / "lab")
    assert same_weights(ranks[0]["weights"], ranks[1]["weights"])
    for term in ("train/crd_student", "train/crd_teacher"):
        losses = [[metrics[term] for metrics in one["metrics"]] for one in (ranks[0], alone)]
        assert losses[0] == pytest.approx(losses[1], rel=0.1)
        assert losses[0][-1] < losses[0][0]


class Tables(Objective[PskdConfig]):
    """A table, a mask and a statistic, as objectives keep them."""

    row_tables = ("table_ND", "seen_N")

    def __init__(self) -> None:
        super().__init__(PskdConfig())
        self.register_buffer("table_ND", torch.zeros(5, 2))
        self.register_buffer("seen_N", torch.zeros(5, dtype=torch.bool))
        self.register_buffer("statistic", torch.tensor([1.0]))
        self.register_buffer("constant", torch.tensor([1.0]), persistent=False)


def fill_tables(folder: Path) -> None:
    team, tables = DdpTeam(), Tables()
    shared = SharedTables(tables, team)
    tables.get_buffer("table_ND")[4] = 9.0
    shared.begin()
    own = [0, 1] if team.rank == 0 else [1, 2]
    tables.get_buffer("table_ND")[own] = float(team.rank + 1)
    tables.get_buffer("seen_N")[own] = True
    tables.get_buffer("statistic").fill_(float(team.rank))
    tables.get_buffer("constant").fill_(float(team.rank))
    shared.settle()
    keep(folder, dict(tables.named_buffers()))


def test_rows_that_ranks_wrote_are_common_after_an_epoch(tmp_path: Path) -> None:
    ranks = run_ranks(fill_tables, 2, tmp_path)
    assert [rank.pop("constant").tolist() for rank in ranks] == [[0.0], [1.0]]  # no part of the state
    assert same_weights(ranks[0], ranks[1])
    # One row by the first rank, one by both, one by the second, one by nobody, one from before.
    assert ranks[0]["table_ND"][:, 0].tolist() == [1.0, 1.5, 2.0, 0.0, 9.0]
    assert ranks[0]["seen_N"].tolist() == [True, True, True, False, False]
    assert ranks[0]["statistic"].tolist() == [0.5]


def average_some(folder: Path) -> None:
    team, module = DdpTeam(), nn.Linear(1, 1)
    module.extra = nn.Parameter(torch.zeros(2))
    module.unused = nn.Parameter(torch.zeros(2))
    module.weight.grad = torch.full((1, 1), float(team.rank))
    if team.rank == 1:  # a term that the other rank's share had nothing for
        module.extra.grad = torch.tensor([4.0, 2.0])
    average_gradients(module, team)
    keep(folder, {name: p.grad for name, p in module.named_parameters() if p.grad is not None})


def test_a_gradient_that_one_rank_alone_has_is_half_of_it_on_both(tmp_path: Path) -> None:
    ranks = run_ranks(average_some, 2, tmp_path)
    assert same_weights(ranks[0], ranks[1])
    assert ranks[0]["extra"].tolist() == [2.0, 1.0]
    assert ranks[0]["weight"].tolist() == [[0.5]]
    assert ranks[0].keys() == {"extra", "weight"}
