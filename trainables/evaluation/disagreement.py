"""What is kept of the answers of a student and its teacher, with pictures where they disagree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from trainables.data import ImageSplit
from trainables.evaluation.answers_file import KeptAnswers, NetworkAnswers
from trainables.evaluation.confusion import Answers, reliability_bins

MOST_SHOWN: Final = 12
SIDE: Final = 96
"""Pixels of the longer side of a picture: of a larger image a smaller copy is kept."""
PICTURED: Final = (1, 3)
"""Channels of images that can be looked at: grey, and colour."""

# N = samples of the split, K = those that are shown, D = channels, H, W = height and width


def kept_answers(
    own: Answers, taught: Answers | None, split: ImageSplit, classes: Sequence[str]
) -> KeptAnswers:
    """What is written of the answers of a student, and of its teacher, to the same images of a split.

    Pictures are what the student was shown, before its pixels are normalised.
    """
    rows_K = most_confident_disagreements(own, taught) if taught else torch.zeros(0, dtype=torch.int64)
    counts_C = own.labels_N.bincount(minlength=len(classes))
    return KeptAnswers(
        classes=tuple(classes),
        ids_N=split.ids.cpu().numpy(),
        labels_N=own.labels_N.numpy(),
        images_C=counts_C.numpy(),
        student=_network(own, len(classes)),
        teacher=_network(taught, len(classes)) if taught else None,
        shown_K=rows_K.numpy(),
        pictures_KHWD=pictures(split, rows_K),
    )


def most_confident_disagreements(own: Answers, taught: Answers, most: int = MOST_SHOWN) -> Tensor:
    """int64 K: places in the split of images to which both give different classes, the surest first.

    A disagreement is as sure as the less sure of the two; of equal ones the first in the split comes first.
    """
    rows_K = (own.answers_N != taught.answers_N).nonzero().flatten()
    sureness_K = torch.minimum(own.confidence_N[rows_K], taught.confidence_N[rows_K])
    return rows_K[sureness_K.argsort(descending=True, stable=True)[:most]]


def pictures(split: ImageSplit, rows_K: Tensor) -> NDArray[np.uint8]:
    """uint8 KxHxWxD of these images of a split; none where it has other channels than grey or colour."""
    channels, height, width = split.image_shape
    if channels not in PICTURED or not len(rows_K):
        return np.zeros((0, 1, 1, 1), dtype=np.uint8)
    images_KDHW = split.images[rows_K].cpu()
    if max(height, width) > SIDE:
        size = [max(round(side * SIDE / max(height, width)), 1) for side in (height, width)]
        smaller = F.interpolate(images_KDHW.float(), size=size, mode="bilinear", antialias=True)
        images_KDHW = smaller.round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(images_KDHW.permute(0, 2, 3, 1).numpy())


def _network(answers: Answers, n_classes: int) -> NetworkAnswers:
    empty = float("nan")
    bins = [
        (
            b.samples,
            empty if b.confidence is None else b.confidence,
            empty if b.accuracy is None else b.accuracy,
        )
        for b in reliability_bins(answers)
    ]
    # Not the diagonal of all confusions: of 20,000 classes these would take gigabytes.
    right_N = answers.labels_N[answers.labels_N == answers.answers_N]
    return NetworkAnswers(
        answers_N=answers.answers_N.numpy(),
        confidence_N=answers.confidence_N.numpy(),
        figures=answers.figures(),
        bins_E3=np.array(bins, dtype=np.float64),
        right_C=right_N.bincount(minlength=n_classes).numpy(),
    )
