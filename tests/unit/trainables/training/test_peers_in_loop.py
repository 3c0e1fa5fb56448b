"""Several networks in one course: weights, optimisers and seeds of their own, one student that is kept."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.unit.trainables.objective_variants import peers_for, reseeded, staged_network, student_for
from tests.unit.trainables.training.small_courses import (
    SHORT,
    same_weights,
    small_course,
    small_student,
    small_workbench,
    untimed,
    weights_of,
)
from trainables.config import TrainingPrecision
from trainables.config.mutual.peers import WithPeers
from trainables.config.objectives import DmlConfig, MclConfig, MfefConfig
from trainables.errors import CheckpointError, TrialFailed
from trainables.evaluation.metrics import figures_of
from trainables.training.course import Course, Trained
from trainables.training.loop import train
from trainables.training.progress.checkpoint_paths import kept_state
from trainables.training.progress.checkpoints import CheckpointFolder, TrainingState
from trainables.training.workbench import Workbench
from trainables.views.normalise import normalise

pytestmark = pytest.mark.usefixtures("one_thread")

Told = list[dict[str, float]]


class Lost(Exception):
    """A worker that dies."""


@pytest.fixture(scope="module")
def workbench() -> Workbench:
    return small_workbench()


def course_of(*peers: nn.Module, objective: WithPeers | None = None, **changes: Any) -> Course:
    """The student beside these networks, or beside one of its own shape."""
    beside = [Trained(peer) for peer in peers or [small_student(seed=1)]]
    own = objective or DmlConfig(peers=len(beside) + 1)
    return replace(small_course(SHORT, objective=own), peers=tuple(beside), **changes)


def told_by(course: Course, workbench: Workbench, **options: Any) -> Told:
    told: Told = []
    train(course, workbench, on_epoch=lambda _, metrics: told.append(untimed(metrics)), **options)
    return told


def kept(folder: Path) -> TrainingState:
    state = CheckpointFolder(folder, spec_digest="a").load_state()
    assert state is not None
    return state


def test_each_network_learns_and_the_student_alone_decides(workbench: Workbench) -> None:
    peer = small_student(seed=1)
    before = weights_of(peer)
    course = course_of(peer)
    told = told_by(course, workbench)
    assert not same_weights(weights_of(peer), before)
    assert not same_weights(weights_of(peer), weights_of(course.model))
    assert told[-1]["train/peer1_ce"] < told[0]["train/peer1_ce"]
    best = max(metrics["selection/accuracy"] for metrics in told)
    own = workbench.evaluate(course.model, workbench.data.selection, batch_size=64)
    assert own["accuracy"] == best


def test_peers_and_ensemble_have_figures_of_their_own(workbench: Workbench) -> None:
    one, two = small_student(seed=1), small_student(seed=2)
    course = replace(course_of(one, two), training=SHORT.with_overrides(epochs=2), keeps_last=True)
    told = told_by(course, workbench)
    split, data = workbench.data.selection, workbench.data
    images = normalise(split.images[:], data.mean, data.std)
    with torch.inference_mode():
        answers = [network.eval()(images).softmax(dim=-1) for network in (course.model, one, two)]
    for name, probabilities_NC in {"peer1": answers[1], "peer2": answers[2]}.items():
        expected = figures_of(probabilities_NC.log(), split.labels)["accuracy"]
        assert told[-1][f"selection/{name}_accuracy"] == pytest.approx(expected)
    together = figures_of(torch.stack(answers).mean(dim=0).log(), split.labels)["accuracy"]
    assert told[-1]["selection/ensemble_accuracy"] == pytest.approx(together)


def test_a_student_alone_has_no_such_figures(workbench: Workbench) -> None:
    assert not [
        name for name in told_by(small_course(), workbench)[0] if "peer" in name or "ensemble" in name
    ]


@pytest.mark.parametrize("dies_in", [3, 4])
def test_a_killed_course_goes_on_with_all_networks_to_the_same_end(
    tmp_path: Path, workbench: Workbench, dies_in: int
) -> None:
    training = SHORT.with_overrides(ema=0.9, clip_norm=1.0, checkpoint_every=1)
    peers = (small_student(seed=1), staged_network(seed=2))
    whole, files = course_of(*peers, training=training), CheckpointFolder(tmp_path / "a", spec_digest="a")
    expected = told_by(whole, workbench, files=files)
    killed = CheckpointFolder(tmp_path / "b", spec_digest="a")
    told: dict[int, dict[str, float]] = {}

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        if epoch == dies_in:
            raise Lost
        told[epoch] = untimed(metrics)

    again = (small_student(seed=1), staged_network(seed=2))
    with pytest.raises(Lost):
        train(course_of(*again, training=training), workbench, on_epoch=on_epoch, files=killed)
    others = (small_student(seed=7), staged_network(seed=8))  # whatever they are built as: the state counts
    course = course_of(*others, training=training)
    train(course, workbench, on_epoch=lambda e, m: told.update({e: untimed(m)}), files=killed)
    assert [told[epoch] for epoch in sorted(told)] == expected
    assert same_weights(weights_of(course.model), weights_of(whole.model))
    for one, other in zip(others, peers, strict=True):
        assert same_weights(weights_of(one), weights_of(other))
    for first, second in zip(kept(tmp_path / "a").peers, kept(tmp_path / "b").peers, strict=True):
        assert (
            first.keys() == second.keys() == {"model", "optimizer", "precision", "average", "average_steps"}
        )
        assert same_weights(first["average"], second["average"])


def test_a_fork_takes_over_all_networks_of_its_origin(tmp_path: Path, workbench: Workbench) -> None:
    """Population based training: with the same recipe and seed the fork ends as its origin does."""
    training = SHORT.with_overrides(checkpoint_every=1)
    origin = CheckpointFolder(tmp_path / "origin", spec_digest="a", keep_all=True)
    whole = course_of(small_student(seed=1), training=training)
    told_by(whole, workbench, files=origin)
    fork = CheckpointFolder(tmp_path / "fork", spec_digest="b", origin=kept_state(tmp_path / "origin", 2))
    peer = small_student(seed=5)
    course = course_of(peer, training=training)
    told_by(course, workbench, files=fork, heard=2)
    assert same_weights(weights_of(peer), weights_of(whole.peers[0].model))


def test_a_state_with_other_peers_is_refused(tmp_path: Path, workbench: Workbench) -> None:
    training = SHORT.with_overrides(checkpoint_every=1)
    told_by(course_of(training=training), workbench, files=CheckpointFolder(tmp_path, spec_digest="a"))
    course = course_of(small_student(seed=1), small_student(seed=2), training=training)
    with pytest.raises(CheckpointError, match="holds 1 networks beside the student, this trial trains 2"):
        told_by(course, workbench, files=CheckpointFolder(tmp_path, spec_digest="a"))


def test_a_state_of_an_earlier_version_has_no_peers(tmp_path: Path, workbench: Workbench) -> None:
    training = SHORT.with_overrides(checkpoint_every=1)
    told_by(
        replace(small_course(), training=training),
        workbench,
        files=CheckpointFolder(tmp_path, spec_digest="a"),
    )
    path = next(tmp_path.glob("last*"))
    document = torch.load(path, weights_only=True)
    del document["peers"]
    torch.save(document, path)
    assert kept(tmp_path).peers == []


def test_what_is_held_of_the_student_is_trained_in_its_peers(workbench: Workbench) -> None:
    """The student starts from given weights, a peer from random ones, which are of no use as they are."""
    training = SHORT.with_overrides(freeze=("0", "1"), lr_groups={"5": 0.1}, epochs=1)
    peer = small_student(seed=1)
    course = course_of(peer, training=training)
    before, peers_before = weights_of(course.model), weights_of(peer)
    told_by(course, workbench)
    assert torch.equal(course.model.state_dict()["0.weight"], before["0.weight"])
    assert not torch.equal(peer.state_dict()["0.weight"], peers_before["0.weight"])


def test_each_network_trains_in_its_own_precision(tmp_path: Path, workbench: Workbench) -> None:
    training = SHORT.with_overrides(checkpoint_every=1, epochs=2)
    peer = Trained(small_student(seed=1), TrainingPrecision.BF16)
    course = replace(small_course(training, objective=DmlConfig()), peers=(peer,))
    told_by(course, workbench, files=CheckpointFolder(tmp_path, spec_digest="a"))
    state = kept(tmp_path)
    assert (state.precision, state.peers[0]["precision"]) == ("fp32", "bf16")


@pytest.mark.parametrize("layers", [False, True])
def test_networks_of_unlike_widths_contrast_their_embeddings(workbench: Workbench, layers: bool) -> None:
    objective = MclConfig(dim=16, layers=layers)
    course = course_of(staged_network(6, seed=1), objective=objective, model=staged_network(4))
    told = told_by(course, workbench)
    assert all(math.isfinite(value) for metrics in told for value in metrics.values())
    assert told[-1]["train/peer1_ce"] < told[0]["train/peer1_ce"]
    assert ("train/layers_soft_icl" in told[-1]) is layers
    plain = course_of(staged_network(6, seed=1), model=staged_network(4), objective=DmlConfig(kl_weight=0.0))
    told_by(plain, workbench)
    assert not same_weights(weights_of(course.model), weights_of(plain.model))


class Skipping(nn.Module):
    """Its logits see the images beside the last stage."""

    def __init__(self) -> None:
        super().__init__()
        self.network = staged_network(seed=2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(images)
        return logits + images.mean(dim=(1, 2, 3))[:, None]


@pytest.mark.parametrize(
    ("peer", "objective", "says"),
    [
        (small_student(seed=1), MfefConfig(peers=3), "Sequential has no feature 'last'.* without a teacher"),
        (Skipping(), MclConfig(peers=3, layers=True, dim=8), "Skipping: what follows stage1 cannot be"),
    ],
    ids=["features", "branches"],
)
def test_a_peer_that_cannot_be_trained_is_told_by_its_number(
    workbench: Workbench, peer: nn.Module, objective: WithPeers, says: str
) -> None:
    course = course_of(staged_network(seed=1), peer, objective=objective, model=staged_network())
    with pytest.raises(TrialFailed, match=f"^peer 2: {says}"):
        told_by(course, workbench)
    as_the_student = course_of(
        staged_network(seed=1), staged_network(seed=3), objective=objective, model=peer
    )
    with pytest.raises(TrialFailed, match=f"^{says}"):
        told_by(as_the_student, workbench)


def test_peers_with_equal_weights_would_learn_the_same() -> None:
    """Why each has a seed of its own; dropout aside, nothing else tells them apart."""
    objective = DmlConfig()
    (peer,) = peers_for(objective)
    assert not same_weights(weights_of(peer.model), weights_of(student_for(objective)))
    assert same_weights(weights_of(reseeded(student_for(objective), 1)), weights_of(peer.model))
