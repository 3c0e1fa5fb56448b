"""Several ranks train one student: real processes, real gloo, no Ray."""

from __future__ import annotations

from dataclasses import replace
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
    separable_split,
    small_course,
    small_student,
    small_workbench,
    untimed,
    weights_of,
)
from tests.unit.trainables.unlabelled_splits import with_unlabelled
from trainables.config import CeConfig, KdConfig, Precision
from trainables.config.metrics import AGREEMENT, KL_TO_TEACHER
from trainables.data.splits import split_facts
from trainables.errors import CheckpointError, TrialFailed
from trainables.training.course import Course
from trainables.training.loop import train
from trainables.training.progress.checkpoints import CheckpointFolder
from trainables.training.ranks import SOLO, DdpTeam, Team, any_rank
from trainables.training.workbench import Workbench
from trainables.views.normalise import normalise

# Six batches of 7 leave 2 rows out; 7 rows are 4 and 3 for two ranks.
UNEVEN = SHORT.with_overrides(batch_size=7)
MEAN: dict[str, float] = {"ema": 0.8, "clip_norm": 0.5, "label_smoothing": 0.1}


def plain_student() -> nn.Module:
    """No batch statistics, no dropout: nothing that depends on how a batch is shared out."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 3))


def plain_course(team: Team, batch_size: int = 7, **more: float) -> Course:
    training = UNEVEN.with_overrides(batch_size=batch_size, **more)
    return Course(plain_student(), CeConfig(), training, 3, team=team)


def trained(course: Course, *, bench: Workbench | None = None, **options: Any) -> dict[str, Any]:
    told: list[tuple[int, dict[str, float]]] = []
    outcome = train(
        course,
        bench or small_workbench(),
        on_epoch=lambda epoch, metrics: told.append((epoch, metrics)),
        **options,
    )
    return {
        "weights": weights_of(course.model),
        "epochs": [epoch for epoch, _ in told],
        "metrics": [untimed(metrics) for _, metrics in told],
        "stopped": outcome.stopped,
    }


def train_plainly(folder: Path, batch_size: int, more: dict[str, float]) -> None:
    keep(folder, trained(plain_course(DdpTeam(), batch_size, **more)))


@pytest.mark.parametrize(
    ("batch_size", "more"),
    [(7, {}), (1, {}), (7, MEAN)],
    ids=["uneven shares", "fewer rows than ranks", "gradients clipped and weights averaged"],
)
def test_two_ranks_train_what_one_trains(tmp_path: Path, batch_size: int, more: dict[str, float]) -> None:
    ranks = run_ranks(train_plainly, 2, tmp_path, batch_size, more)
    alone = trained(plain_course(SOLO, batch_size, **more))
    assert same_weights(ranks[0]["weights"], ranks[1]["weights"])
    for name, value in alone["weights"].items():
        torch.testing.assert_close(ranks[0]["weights"][name], value, rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(alone["metrics"], ranks[0]["metrics"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-3)
    assert [rank["epochs"] for rank in ranks] == [[1, 2, 3, 4, 5], []]


def teaching_workbench(folder: Path) -> Workbench:
    """Unlabelled images beside labelled ones, and a teacher that answers for both."""
    images = separable_split(30, seed=5).images[:]
    data = with_unlabelled(separable_data(), images, share=0.3)
    tiny = TinyCache(
        folder, data, small_student(seed=9), split_facts(data), views=VIEWS, precision=Precision.FP32
    )
    tiny.build()
    workbench = small_workbench(data, cache=tiny.open())
    with torch.no_grad():
        selection = normalise(data.selection.images[:], data.mean, data.std)
        workbench.compare_with(small_student(seed=9).eval()(selection))
    return workbench


def train_with_a_teacher(folder: Path) -> None:
    team = DdpTeam()
    course = Course(plain_student(), KdConfig(), UNEVEN, 3, team=team)
    keep(folder, trained(course, bench=teaching_workbench(folder / f"rank-{team.rank}")))


def test_two_ranks_learn_from_unlabelled_images_what_one_learns(tmp_path: Path) -> None:
    """Seven rows of a batch, two of them without a label, are four and three for the two ranks."""
    ranks = run_ranks(train_with_a_teacher, 2, tmp_path / "both")
    course = Course(plain_student(), KdConfig(), UNEVEN, 3)
    alone = trained(course, bench=teaching_workbench(tmp_path / "alone"))
    assert same_weights(ranks[0]["weights"], ranks[1]["weights"])
    for name, value in alone["weights"].items():
        torch.testing.assert_close(ranks[0]["weights"][name], value, rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(alone["metrics"], ranks[0]["metrics"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-3)
        assert {AGREEMENT, KL_TO_TEACHER} <= mine.keys()  # as one: each rank evaluates the whole split


def train_with_interruption(folder: Path) -> None:
    """Dropout, running statistics, a mean of the weights: all that a restart must bring back."""
    team = DdpTeam()

    def course() -> Course:
        return replace(small_course(SHORT.with_overrides(**MEAN)), team=team)

    whole = trained(course())
    files = CheckpointFolder(folder / "state", spec_digest="x")
    calls = 0

    def stops_on_one_rank_in_epoch_four() -> bool:
        nonlocal calls
        calls += 1
        return team.rank == 1 and calls > 3 * 5 + 2

    first = trained(course(), files=files, should_stop=stops_on_one_rank_in_epoch_four)
    any_rank(team, False)  # both have stopped before either reads what rank 0 wrote
    second = trained(course(), files=files, heard=3)
    keep(folder, {"whole": whole, "first": first, "second": second})


def test_a_team_that_was_stopped_and_goes_on_ends_with_the_same_bits(tmp_path: Path) -> None:
    ranks = run_ranks(train_with_interruption, 2, tmp_path)
    for rank in ranks:
        assert rank["first"]["stopped"]
        assert not rank["second"]["stopped"]
    weights = [ranks[0][part]["weights"] for part in ("whole", "second")]
    assert same_weights(*weights)
    assert ranks[0]["first"]["epochs"] == [1, 2, 3]
    assert ranks[0]["second"]["epochs"] == [3, 4, 5]


def see_different_states(folder: Path) -> None:
    team = DdpTeam()
    files = CheckpointFolder(folder / f"node-{team.rank}", spec_digest="x")
    if team.rank == 0:
        trained(plain_course(SOLO), files=files)
    any_rank(team, False)
    try:
        trained(plain_course(team), files=files)
    except CheckpointError as error:
        keep(folder, str(error))


def test_ranks_that_see_different_states_are_told_that_storage_is_not_shared(tmp_path: Path) -> None:
    messages = run_ranks(see_different_states, 2, tmp_path)
    assert all("must be on storage that all nodes share" in message for message in messages)


def diverge(folder: Path) -> None:
    course = plain_course(DdpTeam())
    mean = (float("nan") if course.team.rank == 1 else 0.2,)
    workbench = small_workbench(replace(separable_data(), mean=mean))
    try:
        train(course, workbench, on_epoch=lambda _epoch, _metrics: None)
    except TrialFailed as error:
        keep(folder, str(error))


def test_a_loss_that_is_not_finite_on_one_rank_ends_the_course_on_every_rank(tmp_path: Path) -> None:
    messages = run_ranks(diverge, 2, tmp_path)
    assert messages[0] == messages[1]
    assert messages[0].startswith("the loss is nan in epoch 1")


def agree(folder: Path) -> None:
    team = DdpTeam()
    job = {"kind": "train", "name": "ü", "values": [1, None, 0.5]}
    heard = team.tell(job if team.rank == 0 else "not this")
    sums = team.sum(torch.tensor([1.0, float(team.rank)])).tolist()
    keep(folder, [heard, sums, any_rank(team, team.rank == 1), any_rank(team, False)])


def test_ranks_hear_rank_0_and_agree(tmp_path: Path) -> None:
    job = {"kind": "train", "name": "ü", "values": [1, None, 0.5]}
    assert run_ranks(agree, 2, tmp_path) == [[job, [2.0, 1.0], True, False]] * 2
