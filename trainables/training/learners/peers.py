"""The networks that are trained beside a student, and branches made of a network's own later stages."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from trainables.config import ObjectiveBase
from trainables.data import TrainingData
from trainables.errors import CheckpointError, TrialFailed
from trainables.models.features.later_stages import LaterStages, later_stages
from trainables.models.foreign.copies import copied
from trainables.objectives import build_objective
from trainables.signals import Setting
from trainables.training.course import Course, Trained
from trainables.training.learners.learner import Learner
from trainables.training.step_inputs import student_tap
from trainables.training.workbench import Workbench


@contextmanager
def of_network(number: int) -> Iterator[None]:
    """What fails within says of which network of a course it is: its peers count from 1.

    Raises:
        TrialFailed: something has failed; what is of the student, number 0, is told as it is.
    """
    try:
        yield
    except TrialFailed as error:
        if number == 0:
            raise
        raise TrialFailed(f"peer {number}: {error}") from error


def peers_of(course: Course, workbench: Workbench) -> list[Learner]:
    """The course's peers, each with an optimiser of its own.

    The recipe is the student's, but for the parts that it holds or slows down: those are of a network that
    starts from given weights, and peers start from random ones.

    Raises:
        TrialFailed: a peer has no feature that the objective asks for.
    """
    recipe = course.training.model_copy(update={"freeze": (), "lr_groups": {}})
    peers = []
    for number, peer in enumerate(course.peers, start=1):
        with of_network(number):
            peers.append(Learner(peer, course.objective, recipe, workbench, course.team))
    return peers


def restore_peers(peers: Sequence[Learner], states: Sequence[dict[str, Any]]) -> None:
    """Go on from what each peer's `state` gave.

    Raises:
        CheckpointError: the state holds another number of peers.
    """
    if len(states) != len(peers):
        raise CheckpointError(
            f"the state to go on from holds {len(states)} networks beside the student, this trial trains "
            f"{len(peers)}: its peers have changed; delete the trial's folder and run again"
        )
    for peer, state in zip(peers, states, strict=True):
        peer.restore(state)


def branch_of(course: Course, workbench: Workbench, stage: str, number: int = 0) -> LaterStages:
    """What makes of the map of a stage what the rest of a network of the course would, on the device.

    `number` is that of the network: 0 is the student, then its peers. The weights are fresh ones, which hang
    on the course's seed, the network and the stage.

    Raises:
        TrialFailed: the network has no such stage, or cannot be cut there.
    """
    trained = [course.student, *course.peers][number]
    fresh = course.fresh(f"branch {stage}", number) if course.fresh else copied(trained.model)
    with of_network(number):
        return _branch(fresh.to(workbench.device), stage, trained, workbench.data)


def require_objective(config: ObjectiveBase, networks: Sequence[Trained], data: TrainingData) -> None:
    """Refuse networks, the student first, of which an objective without a teacher cannot be made.

    It is made as a trial makes it, with branches of the networks' own later stages, but for one sample of
    each class. The networks are on the CPU, and stay as they are; one that is given twice is tried once.

    Raises:
        TrialFailed: a network lacks a feature that is compared, or no branch can be made of it.
    """
    models = [network.model for network in networks]

    @functools.cache
    def shapes(number: int) -> dict[str, tuple[int, ...]]:
        with of_network(number):
            trained = networks[number]
            tap = student_tap(config, trained.model, data, torch.device("cpu"), trained.stated)
        return dict(tap.shapes) if tap else {}

    @functools.cache
    def branch(stage: str, number: int) -> nn.Module:
        with of_network(number):
            return _branch(models[number], stage, networks[number], data)

    student, *peers = (shapes(models.index(model)) for model in models)
    n_classes = len(data.classes)
    setting = Setting(
        n_samples=n_classes,
        n_classes=n_classes,
        epochs=1,
        labels_N=torch.arange(n_classes),
        student_shapes=student,
        image_shape=data.train.image_shape,
        peer_shapes=tuple(peers),
        later_stages=lambda stage, number: branch(stage, models.index(models[number])),
    )
    with torch.random.fork_rng(devices=[]):
        build_objective(config, setting)


def _branch(network: nn.Module, stage: str, of: Trained, data: TrainingData) -> LaterStages:
    return later_stages(
        network,
        stage,
        n_classes=len(data.classes),
        input_shape=data.train.image_shape,
        stated=of.stated,
    )
