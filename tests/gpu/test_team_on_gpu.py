"""Two ranks that share a GPU train one student: through gloo, since NCCL wants a GPU for each rank."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.gpu.compared_courses import bench_on, run
from tests.gpu.tried import tried_device
from tests.integration.ranks import keep, run_ranks
from tests.unit.trainables.training.small_courses import SHORT, same_weights
from trainables.config import CeConfig
from trainables.training.course import Course
from trainables.training.ranks import SOLO, DdpTeam, Team

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

# Six batches of 7 leave 2 rows out; 7 rows are 4 and 3 for two ranks.
UNEVEN = SHORT.with_overrides(batch_size=7, ema=0.8, clip_norm=0.5)


def plain_student() -> nn.Module:
    """No batch statistics, no dropout: nothing that depends on how a batch is shared out."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 3))


def course_of(team: Team) -> Course:
    return Course(plain_student(), CeConfig(), UNEVEN, 3, team=team)


def train_together(folder: Path) -> None:
    ended = run(course_of(DdpTeam()), bench_on(tried_device()))
    keep(folder, {"epochs": len(ended.told), "weights": {n: v.cpu() for n, v in ended.weights.items()}})


def test_two_ranks_on_one_gpu_train_what_one_trains(tmp_path: Path, device: torch.device) -> None:
    ranks = run_ranks(train_together, 2, tmp_path)
    alone = run(course_of(SOLO), bench_on(device))
    assert same_weights(ranks[0]["weights"], ranks[1]["weights"])
    for name, value in alone.weights.items():
        torch.testing.assert_close(ranks[0]["weights"][name], value.cpu(), rtol=1e-3, atol=1e-4)
    assert [rank["epochs"] for rank in ranks] == [UNEVEN.epochs, 0]
