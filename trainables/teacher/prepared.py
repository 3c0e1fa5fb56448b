"""A teacher with what it was prepared with: parts beside it that make features of its own."""

# B = images, C = channels, H, W = height and width, D = numbers in an embedding

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

from trainables.config import digest_of
from trainables.config.objective_base import EMBEDDING, Preparation
from trainables.config.representation.preparation import BRANCH, BRANCH_DEPTH, SS_HEAD, PreparedPart
from trainables.errors import CacheError, CheckpointError
from trainables.models.features import Extended, Extra, FeatureTap
from trainables.models.features.search import find_points
from trainables.models.weights import load_weights, weights_digest
from trainables.objectives.representation.terms.joint_branches import JointBranches
from trainables.objectives.representation.terms.self_supervision import SsHead

CPU = torch.device("cpu")


class StageBranches(nn.Module):
    """`JointBranches`, called with a map for each argument."""

    def __init__(self, shapes: Sequence[tuple[int, ...]], n_classes: int, *, depth: int) -> None:
        """As those of `JointBranches`."""
        super().__init__()
        self.joint = JointBranches(shapes, n_classes, depth=depth)

    def forward(self, *maps: Tensor) -> tuple[Tensor, ...]:
        """Joint logits of each branch."""
        answers: tuple[Tensor, ...] = self.joint(maps)
        return answers


def extended(
    teacher: nn.Module,
    kinds: Sequence[Preparation],
    *,
    n_classes: int,
    input_shape: tuple[int, int, int],
    stated: Mapping[str, str] = MappingProxyType({}),
    branch_depth: int = BRANCH_DEPTH,
) -> Extended:  # budget: what a teacher is, and what it is prepared with
    """A teacher on the CPU with fresh parts beside it; their weights come from torch's global generator.

    Raises:
        CacheError: it has no embedding, or no stages, or is no one network of PyTorch.
    """
    found = find_points(
        teacher, n_classes=n_classes, input_shape=input_shape, device=CPU, stated=stated, error=CacheError
    )
    numbers = (f"stage{number}" for number in range(1, len(found.places) + 1))
    stages = tuple(name for name in numbers if name in found.places) or ("stage1",)
    given = {Preparation.SS_HEAD: (EMBEDDING,), Preparation.BRANCHES: stages}
    names = tuple(dict.fromkeys(name for kind in kinds for name in given[kind]))
    tap = FeatureTap(
        teacher,
        names,
        n_classes=n_classes,
        input_shape=input_shape,
        device=CPU,
        stated=stated,
        error=CacheError,
    )
    extras: dict[str, Extra] = {}
    for kind in kinds:
        shapes = [tap.shapes[name] for name in given[kind]]
        if kind is Preparation.SS_HEAD:
            extras[kind.value] = Extra(SsHead(shapes[0][0]), given[kind], {SS_HEAD: ""})
        else:
            part = StageBranches(shapes, n_classes, depth=branch_depth)
            gives = {f"{BRANCH}{n}": f"joint.branches.{n - 1}" for n in range(1, len(shapes) + 1)}
            extras[kind.value] = Extra(part, given[kind], gives)
    return Extended(tap, extras)


def with_prepared(
    teacher: nn.Module,
    parts: Sequence[PreparedPart],
    *,
    n_classes: int,
    input_shape: tuple[int, int, int],
    stated: Mapping[str, str] = MappingProxyType({}),
) -> nn.Module:
    """The teacher with the parts that it was prepared with; the teacher itself where there are none.

    Raises:
        CheckpointError: their weights cannot be read, do not fit, or are others.
        CacheError: the teacher has not the features that they are given.
    """
    if not parts:
        return teacher
    depth = max(part.branch_depth for part in parts)
    with torch.random.fork_rng(devices=[]):  # the weights that they begin with are drawn only to be replaced
        whole = extended(
            teacher,
            [part.kind for part in parts],
            n_classes=n_classes,
            input_shape=input_shape,
            stated=stated,
            branch_depth=depth,
        )
    for part in parts:
        load_weights(whole.parts[part.kind.value], Path(part.weights))
        if part_digest(whole.parts[part.kind.value], part.kind) != part.sha256:
            raise CheckpointError(
                f"{part.weights} does not hold what the teacher was prepared with ({part.sha256[:8]}…); "
                "delete it, and run again: it is trained anew"
            )
    return whole


def part_digest(part: nn.Module, kind: Preparation) -> str:
    """Hex sha256 of a part's kind and weights, whose shapes count too."""
    return digest_of([kind.value, weights_digest(part)])
