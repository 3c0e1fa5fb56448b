"""HSAKD's auxiliary classifiers of class and turn together, a branch on each stage of a network.

Yang et al., "Hierarchical self-supervised augmented knowledge distillation", IJCAI 2021, arXiv 2107.13715.
"""

# B = rows of a batch, R = 4 rows of all turns of each image, J = 4 labels of each class: class and turn
# C = channels of a map, H, W = its height and width

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

import torch.nn.functional as F
from torch import Tensor, nn

from trainables.objectives.representation.terms.heads import BatchNorm, head_output
from trainables.objectives.representation.terms.rotations import TURNS, joint_labels_R
from trainables.tensors import at_least_fp32

_MAP_DIMENSIONS: Final = 3


class JointBranches(nn.Module):
    """A branch on each stage: the stages that follow, the mean over positions, a linear layer to J logits.

    The branch on stage l has stages l + 1 to L of its own; that on the last one has one more, with stride 1.
    In the paper they have the network's own kind of block. Here (inferred) a stage is `depth` times a 3x3
    convolution, batch norm and ReLU, the first with the network's change of channels and size: a network's
    blocks cannot be had from the shapes of its maps.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], n_classes: int, *, depth: int) -> None:
        """`shapes` are (C, H, W) of one sample's map after each stage, the first one first.

        Raises:
            ValueError: there is no stage, or one that has no map.
        """
        super().__init__()
        if not shapes or any(len(shape) != _MAP_DIMENSIONS for shape in shapes):
            raise ValueError(f"branches stand on maps (C, H, W), one for each stage; got {list(shapes)}")
        self.branches = nn.ModuleList(
            _branch(shapes[number:], TURNS * n_classes, depth) for number in range(len(shapes))
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """BxJ joint logits of each branch, outside autocast, of maps BxCxHxW in the order of the stages."""
        pairs = zip(self.branches, maps, strict=True)
        return tuple(head_output(branch, map_BCHW) for branch, map_BCHW in pairs)


def joint_label_loss(joint_RJ: Tensor, labels_B: Tensor) -> Tensor:
    """Cross-entropy of a branch's logits of all turns with the labels 4 y + r; mean over the R rows.

    Rows are in the order of `rotations`.
    """
    return F.cross_entropy(at_least_fp32(joint_RJ), joint_labels_R(labels_B))


def branch_losses(joint: Mapping[str, Tensor], labels_B: Tensor) -> dict[str, Tensor]:
    """`joint_label_loss` of each branch, by name: what branches on a frozen teacher learn by, summed.

    A teacher that is trained together with them (the paper's Teacher*) adds the cross-entropy of its own
    logits of the upright images.
    """
    return {name: joint_label_loss(joint_RJ, labels_B) for name, joint_RJ in joint.items()}


def _branch(shapes: Sequence[tuple[int, ...]], n_outputs: int, depth: int) -> nn.Sequential:
    following = list(pairwise(shapes)) or [(shapes[-1], shapes[-1])]
    stages = [_stage(before, after, depth) for before, after in following]
    width = shapes[-1][0]
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, n_outputs))


def _stage(before: tuple[int, ...], after: tuple[int, ...], depth: int) -> nn.Sequential:
    stride = tuple(max(1, round(b / a)) for b, a in zip(before[1:], after[1:], strict=True))
    layers: list[nn.Module] = []
    for number in range(depth):
        n_in = before[0] if number == 0 else after[0]
        convolution = nn.Conv2d(n_in, after[0], 3, stride if number == 0 else 1, padding=1, bias=False)  # type: ignore[arg-type]
        layers += [convolution, BatchNorm(after[0]), nn.ReLU()]
    return nn.Sequential(*layers)
