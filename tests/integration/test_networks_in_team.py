"""Networks that teach each other, or themselves, among several ranks: real processes, real gloo, no Ray."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.integration.ranks import keep, run_ranks
from tests.unit.trainables.objective_variants import reseeded, staged_network
from tests.unit.trainables.training.small_courses import (
    SHORT,
    same_weights,
    separable_data,
    small_workbench,
    untimed,
    weights_of,
)
from trainables.config import ObjectiveBase
from trainables.config.objectives import DmlConfig, MclConfig, MfefConfig, MixskdConfig
from trainables.objectives import build_objective
from trainables.signals import Objective
from trainables.training.batches import epoch_batches, shared
from trainables.training.course import Course, Trained
from trainables.training.loop import train
from trainables.training.ranks import SOLO, DdpTeam, Share, Team

# Seven rows are 4 and 3 for two ranks; five pairs are 3 and 2.
UNEVEN = SHORT.with_overrides(batch_size=7)
PAIRS = SHORT.with_overrides(batch_size=10, sampling="pairs")
SEED = 3
OBJECTIVES: dict[str, ObjectiveBase] = {
    "dml": DmlConfig(),
    "mcl of pairs": MclConfig(dim=8),
    "mcl with banks": MclConfig(form="bank", dim=8),
    "mfef": MfefConfig(),
    "mixskd": MixskdConfig(disc_weight=1.0),
}
FALLING = {
    "mfef": ("train/ce", "train/peer1_ce", "train/fusion_ce"),
    "mixskd": ("train/ce", "train/ce_mixed"),
}
"""Losses of those whose networks, fusion and branches have batch statistics."""
Ranks = list[dict[str, dict[str, Any]]]
"""Of each rank, by objective, what `trained` gives."""


def plain_student() -> nn.Module:
    """No batch statistics, no dropout: nothing that depends on how a batch is shared out."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 3))


def course_of(name: str, team: Team) -> Course:
    objective = OBJECTIVES[name]
    if name in FALLING:
        student, peer = staged_network(4), staged_network(6, seed=1)
    else:
        student, peer = plain_student(), reseeded(plain_student(), 1)
    peers = (Trained(peer),) if objective.with_peers else ()
    training = PAIRS if name == "mcl of pairs" else UNEVEN
    return Course(student, objective, training, SEED, team=team, peers=peers)


@contextmanager
def noting(objectives: list[Objective[Any]], rows: list[Tensor]) -> Iterator[None]:
    """Note the objective that a course makes, which it gives nobody, and the rows of this rank's shares."""

    def built(*arguments: Any) -> Objective[Any]:
        objectives.append(build_objective(*arguments))
        return objectives[-1]

    def shared_out(*arguments: Any, **named: Any) -> Share:
        share = shared(*arguments, **named)
        rows.append(share.rows_B)
        return share

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainables.training.loop.build_objective", built)
        patch.setattr("trainables.training.loop.shared", shared_out)
        yield


def trained(name: str, team: Team) -> dict[str, Any]:
    """What a rank has in the end: networks, the objective's state, what was told, rows of each batch."""
    course, told = course_of(name, team), list[dict[str, float]]()
    objectives, rows = list[Objective[Any]](), list[Tensor]()
    with noting(objectives, rows):
        train(course, small_workbench(), on_epoch=lambda _, metrics: told.append(untimed(metrics)))
    networks = [course.model, *(peer.model for peer in course.peers)]
    return {
        "networks": [weights_of(network) for network in networks],
        "objective": weights_of(objectives[0]),
        "metrics": told,
        "rows": rows,
    }


def train_each(folder: Path) -> None:
    team = DdpTeam()
    keep(folder, {name: trained(name, team) for name in OBJECTIVES})


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    """Two of them, which train one course after the other."""
    return run_ranks(train_each, 2, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_ranks_end_with_the_same_networks_and_the_same_state(ranks: Ranks, name: str) -> None:
    """Weights and buffers: batch statistics too, also of what the objective trains beside the networks."""
    one, other = (rank[name] for rank in ranks)
    assert len(one["networks"]) == len(other["networks"]) == 1 + OBJECTIVES[name].with_peers
    for mine, theirs in zip(one["networks"], other["networks"], strict=True):
        assert same_weights(mine, theirs)
    assert same_weights(one["objective"], other["objective"])
    assert (len(one["metrics"]), other["metrics"]) == (SHORT.epochs, [])


def test_two_ranks_train_the_networks_of_dml_that_one_trains(ranks: Ranks) -> None:
    alone, together = trained("dml", SOLO), ranks[0]["dml"]
    for mine, theirs in zip(alone["networks"], together["networks"], strict=True):
        for name, value in mine.items():
            torch.testing.assert_close(theirs[name], value, rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(alone["metrics"], together["metrics"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("name", FALLING)
def test_what_has_batch_statistics_beside_the_networks_learns_in_a_team(ranks: Ranks, name: str) -> None:
    found = ranks[0][name]
    for state in (*found["networks"], found["objective"]):
        assert any(key.endswith("running_mean") for key in state)
    for loss in FALLING[name]:
        assert found["metrics"][-1][loss] < found["metrics"][0][loss]


def test_two_ranks_train_two_networks_with_banks_of_mcl(ranks: Ranks) -> None:
    """The draws differ by rank, and a rank reads the other's entries an epoch late: the end is nearly one."""
    alone, together = trained("mcl with banks", SOLO), ranks[0]["mcl with banks"]
    for loss in ("train/vcl", "train/peer1_vcl", "train/icl"):
        told = [[metrics[loss] for metrics in one["metrics"]] for one in (together, alone)]
        assert told[0][-1] == pytest.approx(told[1][-1], rel=0.1)
        assert told[0][-1] < told[0][0] / 2


def test_both_images_of_a_pair_go_to_one_rank_and_both_ranks_see_each_pair(ranks: Ranks) -> None:
    """A rank contrasts the images of its own share alone: a pair that was parted would be no contrast."""
    data, epochs = separable_data(), range(1, SHORT.epochs + 1)
    batches = [b for e in epochs for b in epoch_batches(data, PAIRS, seed=SEED, epoch=e, unlabelled=False)]
    shares = [rank["mcl of pairs"]["rows"] for rank in ranks]
    for batch, *of_ranks in zip(batches, *shares, strict=True):
        assert [len(rows_B) for rows_B in of_ranks] == [6, 4]
        assert torch.equal(torch.cat(of_ranks), batch.rows_B)
        for rows_B in of_ranks:
            one, other = data.train.labels[rows_B.view(-1, 2)].unbind(dim=1)
            assert torch.equal(one, other)
