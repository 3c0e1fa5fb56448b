"""Features of every name, images and a setting, for objectives that are tried on logits alone.

The features are smooth functions of a row's logits, the same for student and teacher: equal logits have equal
features, and what a loss of features has for a gradient reaches the logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.config.objective_base import ROTATED
from trainables.signals import PeerSignal, Setting, Signals, TeacherClassifier
from trainables.tensors import at_least_fp32

# B = samples in the batch, C = classes, D = numbers in an embedding and channels of each map, P = tokens
# H, W = rows and columns of places

MOST_CLASSES: Final = 16
"""That an embedding tells of: heads on it stay small."""
SIDES: Final[Mapping[str, int]] = MappingProxyType(
    {"first_conv": 8, "stem": 8, "stage1": 8, "stage2": 4, "stage3": 2, "stage4": 1}
)
LAST_STAGE: Final = "stage3"
TOKENS: Final = 5
IMAGE_SHAPE: Final = (3, 16, 16)
QUARTER_TURNS: Final[Mapping[str, int]] = MappingProxyType(
    {bank: turns for turns, bank in enumerate(ROTATED) if turns}
)
"""Banks that show the view of `weak` turned."""


def features_of(logits_BC: Tensor) -> dict[str, Tensor]:
    """Of every name, at least in fp32: embedding and maps above 0, what precedes an activation of both signs.

    The mean over places of `last` is the embedding, and `classifier` makes the logits of it where they have
    at most 16 classes.
    """
    with torch.autocast(logits_BC.device.type, enabled=False):
        logits_BC = at_least_fp32(logits_BC)
        few_BC = logits_BC[:, :MOST_CLASSES]
        embedding_BD = torch.cat([F.softplus(few_BC), F.softplus(-few_BC)], dim=-1)
        width = embedding_BD.shape[-1]
        found = {
            name: embedding_BD[:, :, None, None] * _pattern(name, (width, side, side), embedding_BD)
            for name, side in SIDES.items()
        }
        found["last"] = found[LAST_STAGE]
        found |= {f"{name}.pre": found[name] - 0.5 for name in SIDES if name != "first_conv"}
        found |= {f"energy.{name}": found[name].square().mean(dim=1) for name in (*SIDES, "last")}
        found["embedding"] = embedding_BD
        found["tokens"] = embedding_BD[:, None, :] * _pattern("tokens", (TOKENS, width), embedding_BD)
        found["ss_head"] = embedding_BD @ _pattern("ss_head", (width, width), embedding_BD)
        found |= {"class_logits": logits_BC, "distillation_logits": logits_BC}
        joint_B4C = logits_BC.repeat_interleave(4, dim=-1)
        for branch in ("branch1", "branch2", "branch3", "branch4"):
            found[branch] = joint_B4C + _pattern(branch, (joint_B4C.shape[-1],), joint_B4C)
        return found


def classifier(n_classes: int) -> TeacherClassifier:
    """The teacher's: it makes logits of the embedding again, those of the first 16 classes at least."""
    told = torch.eye(n_classes)[:, :MOST_CLASSES]
    return TeacherClassifier(torch.cat([told, -told], dim=1), torch.zeros(n_classes))


def images_of(bank: str, rows: int) -> Tensor:
    """The images of a batch as a bank shows them."""
    if bank in QUARTER_TURNS:
        return torch.rot90(images_of("weak", rows), QUARTER_TURNS[bank], dims=(2, 3))
    draw = np.random.default_rng(sum(bank.encode()))
    return torch.from_numpy(draw.normal(size=(rows, *IMAGE_SHAPE)).astype(np.float32))


def peers_of(students: Mapping[str, Tensor], count: int = 1) -> tuple[PeerSignal, ...]:
    """Networks beside the student, each with answers of its own and without gradient."""
    return tuple(_peer_of(students, number) for number in range(1, count + 1))


def _peer_of(students: Mapping[str, Tensor], number: int) -> PeerSignal:
    # Indexed and not rolled, which autocast has no fp16 for; halved, which is exact in every precision.
    others = {
        bank: value_BC.detach()[:, (torch.arange(value_BC.shape[-1]) - number) % value_BC.shape[-1]]
        / 2**number
        for bank, value_BC in students.items()
    }
    return PeerSignal(others, {bank: features_of(value_BC) for bank, value_BC in others.items()})


def setting_of(signals: Signals, *, n_samples: int = 64, epochs: int = 10) -> Setting:
    """What an objective that is given these signals is made for; the batch is the first rows of the split."""
    n_classes = next(iter(signals.student.values())).shape[-1]
    labels_N = torch.arange(n_samples) % n_classes
    labels_N[: len(signals.labels_B)] = signals.labels_B
    teachers = [signal.features for signal in signals.teacher.values()]
    of_student = _shapes(next(iter(signals.features.values()), {}))
    of_peers = tuple(_shapes(next(iter(peer.features.values()), {})) for peer in signals.peers)
    return Setting(
        n_samples,
        n_classes,
        epochs,
        labels_N=labels_N,
        student_shapes=of_student,
        teacher_shapes=_shapes(teachers[0] if teachers else {}),
        classifier=classifier(n_classes),
        image_shape=IMAGE_SHAPE,
        later_stages=lambda *_: LaterStagesStandIn(n_classes),
        peer_shapes=of_peers,
    )


class LaterStagesStandIn(nn.Module):
    """Logits, and a last map of the last stage's shape, of the mean over places of a map that it is given."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.n_classes = n_classes

    def forward(self, map_BCHW: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """As the later stages of a network: logits and features by name."""
        pooled_BD = self.scale * map_BCHW.mean(dim=(2, 3))
        told = classifier(self.n_classes).weight_CD.to(pooled_BD)
        side = SIDES["stage4"]
        last = pooled_BD[:, :, None, None].expand(-1, -1, side, side)
        return pooled_BD @ told.T, {"last": last, "embedding": pooled_BD}


def _shapes(features: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(feature.shape[1:]) for name, feature in features.items()}


def _pattern(name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Numbers between 0.3 and 1.7 that a name always has; a map's are 1 on the mean of each channel."""
    drawn = np.random.default_rng(sum(name.encode())).uniform(0.5, 1.5, size=shape)
    if len(shape) == 3:
        drawn = drawn / drawn.mean(axis=(1, 2), keepdims=True)
    return torch.from_numpy(drawn).to(like)
