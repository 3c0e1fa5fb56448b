"""The networks that are trained beside a student, and branches made of a network's own later stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trainables.errors import CheckpointError
from trainables.models.features.later_stages import LaterStages, later_stages
from trainables.models.foreign.copies import copied
from trainables.training.course import Course
from trainables.training.learners.learner import Learner
from trainables.training.workbench import Workbench


def peers_of(course: Course, workbench: Workbench) -> list[Learner]:
    """The course's peers, each with an optimiser of its own.

    The recipe is the student's, but for the parts that it holds or slows down: those are of a network that
    starts from given weights, and peers start from random ones.

    Raises:
        TrialFailed: a peer has no feature that the objective asks for.
    """
    recipe = course.training.model_copy(update={"freeze": (), "lr_groups": {}})
    return [Learner(peer, course.objective, recipe, workbench, course.team) for peer in course.peers]


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
    return later_stages(
        fresh.to(workbench.device),
        stage,
        n_classes=len(workbench.data.classes),
        input_shape=workbench.input_shape,
        stated=trained.stated,
    )
