"""Random logits and labels, and the signals and losses of any objective made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.numerics.feature_stand_ins import features_of, images_of, peers_of, setting_of
from trainables.config import OBJECTIVE_CONFIGS, ObjectiveBase
from trainables.config.objective_base import MIXED, ROTATED
from trainables.objectives import build_objective
from trainables.objectives.terms.divergences import confidence_B
from trainables.signals import Losses, Objective, Pairs, Signals, TeacherSignal
from trainables.tensors import at_least_fp32

BANKS = ("weak", "strong", *ROTATED[1:])


def signals_of(
    students: Mapping[str, Tensor],
    teachers: Mapping[str, Tensor],
    labels_B: Tensor,
    *,
    featured: Mapping[str, Tensor] | None = None,
) -> Signals:
    """All that an objective may ask for; the teacher's features are of `featured`, else of its logits.

    A network that is trained beside the student has answers of its own, see `peers_of`. Images are mixed in
    pairs, each with the one of the opposite place in the batch.
    """
    teacher = {
        bank: TeacherSignal(value_BC, confidence_B(value_BC), features_of((featured or teachers)[bank]))
        for bank, value_BC in teachers.items()
    }
    dense = {
        bank: value_BC.detach()[:, :, None, None].expand(-1, -1, 2, 2) for bank, value_BC in students.items()
    }
    rows = len(labels_B)
    pairs = Pairs(torch.arange(rows).flip(0), torch.tensor(0.3))
    students = {**students, MIXED: pairs.mixed(at_least_fp32(students["weak"]))}
    return Signals(
        dict(students),
        teacher,
        labels_B,
        7,
        rows_B=torch.arange(len(labels_B)),
        dense=dense,
        features={bank: features_of(value_BC) for bank, value_BC in students.items()},
        images={bank: images_of(bank, rows) for bank in students},
        epochs=10,
        peers=peers_of(students),
        pairs=pairs,
    )


def random_logits(seed: int, rows: int, classes: int, scale: float = 2.0) -> dict[str, Tensor]:
    draw = np.random.default_rng(seed)
    return {
        bank: torch.from_numpy(draw.normal(scale=scale, size=(rows, classes)).astype(np.float32))
        for bank in BANKS
    }


def random_labels(seed: int, rows: int, classes: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(classes, size=rows))


def built(config: ObjectiveBase, signals: Signals, *, epochs: int = 10) -> Objective[Any]:
    """The objective made for the signals and in their precision; its first weights are always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        objective = build_objective(config, setting_of(signals, epochs=epochs))
    return objective.to(torch.promote_types(signals.student["weak"].dtype, torch.float32))


def losses_of(objective: str | ObjectiveBase, signals: Signals, *, epochs: int = 10) -> Losses:
    """Those of an objective, or of the one of that name at its defaults; its draws are always the same.

    It hears as many networks as its configuration says: stand-ins beside those of the signals.
    """
    config = OBJECTIVE_CONFIGS[objective]() if isinstance(objective, str) else objective
    if config.n_networks > 1 + len(signals.peers):
        signals = replace(signals, peers=peers_of(signals.student, config.n_networks - 1))
    made = built(config, signals, epochs=epochs)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return made(signals)


def with_grad(logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {bank: value_BC.clone().requires_grad_() for bank, value_BC in logits.items()}
