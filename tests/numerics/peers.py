"""Signals of networks that are trained together, made of the logits of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tests.numerics.reference import LABELS, STRONG_STUDENT, WEAK_STUDENT, Rows, logits
from trainables.signals import PeerSignal, Signals

# B = samples in the batch, C = classes


def together(*answers: Tensor, labels: list[int], **more: Any) -> Signals:
    """The student's logits on the weak view, then those of each network beside it."""
    student_BC, *others = answers
    peers = tuple(PeerSignal({"weak": peer_BC}, {"weak": {}}) for peer_BC in others)
    return Signals(
        student={"weak": student_BC},
        teacher={},
        labels_B=torch.tensor(labels),
        epoch=1,
        peers=peers,
        **more,
    )


def embedded(
    embeddings: Sequence[Tensor], *, labels: list[int], answers: Sequence[Tensor] = (), **more: Any
) -> Signals:
    """The student's embeddings, then those of each network beside it; logits of zeros unless given.

    The samples are the first rows of the training split.
    """
    silent_BC = torch.zeros(len(labels), max(*labels, 1) + 1, dtype=embeddings[0].dtype)
    said = answers or [silent_BC] * len(embeddings)
    held = [{"weak": {"embedding": embedding_BD}} for embedding_BD in embeddings]
    return Signals(
        student={"weak": said[0]},
        teacher={},
        labels_B=torch.tensor(labels),
        features=held[0],
        peers=tuple(PeerSignal({"weak": own}, one) for own, one in zip(said[1:], held[1:], strict=True)),
        **{"epoch": 1, "rows_B": torch.arange(len(labels)), **more},
    )


def two_networks(first: Rows = WEAK_STUDENT, second: Rows = STRONG_STUDENT, **more: Any) -> Signals:
    """The fixture F1 of the reference: its students on the weak and the strong view are two networks."""
    return together(logits(first, grad=True), logits(second, grad=True), labels=LABELS, **more)
