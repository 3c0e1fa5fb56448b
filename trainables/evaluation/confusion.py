"""Which classes are taken for which, and how far confidences are right: figures beside those of a split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.data import ImageSplit
from trainables.errors import DataError
from trainables.evaluation.metrics import ECE_BINS, calibration_error, confidence_bins, finite_logits
from trainables.models.modes import evaluating

# N = samples, C = classes, B = samples of a batch


@dataclass(frozen=True)
class Answers:
    """What a network said of N samples, and what is true; all on the CPU."""

    labels_N: Tensor
    """int64."""
    answers_N: Tensor
    """int64: the most probable class."""
    confidence_N: Tensor
    """float32: its probability."""
    nll_N: Tensor
    """float32: cross-entropy of each sample in nats."""

    @property
    def correct_N(self) -> Tensor:
        """float32: 1 where the answer is the label."""
        return (self.answers_N == self.labels_N).float()

    def figures(self) -> dict[str, float]:
        """Accuracy, nll and ece, as `metrics.evaluate` defines them."""
        correct_N = self.correct_N
        return {
            "accuracy": float(correct_N.mean()),
            "nll": float(self.nll_N.mean()),
            "ece": float(calibration_error(self.confidence_N, correct_N)),
        }


@dataclass(frozen=True)
class ReliabilityBin:
    """The samples whose confidence lies between two bounds."""

    lower: float
    upper: float
    samples: int
    confidence: float | None
    """Mean of theirs; none of an empty bin."""
    accuracy: float | None
    """Of theirs; none of an empty bin."""


def answers_of(batches: Iterable[tuple[Tensor, Tensor]]) -> Answers:
    """Four numbers of each sample, from batches of float32 logits BxC and int64 labels B.

    Raises:
        DataError: there is no sample.
    """
    labels, answers, confidences, losses = [], [], [], []
    for logits_BC, labels_B in batches:
        confidence_B, answer_B = logits_BC.softmax(dim=-1).max(dim=-1)
        labels.append(labels_B)
        answers.append(answer_B)
        confidences.append(confidence_B)
        losses.append(F.cross_entropy(logits_BC, labels_B, reduction="none"))
    if not labels:
        raise DataError("there is no image to evaluate on that can be read; give at least one")
    return Answers(*(torch.cat(column) for column in (labels, answers, confidences, losses)))


def labelled_answers(
    model: nn.Module,
    split: ImageSplit,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int,
    device: torch.device,
) -> Answers:
    """What a network says of the unaltered images of a split; its training modes are as before afterwards.

    Raises:
        DataError: the split is empty.
        TrialFailed: a logit is not finite.
    """
    labels_N = split.labels.to(device)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        first = 0
        for batch in split.batches(batch_size):
            yield finite_logits(model, batch.to(device), mean, std), labels_N[first : first + len(batch)]
            first += len(batch)

    with evaluating(model), torch.inference_mode():
        found = answers_of(batches())
        columns = (found.labels_N, found.answers_N, found.confidence_N, found.nll_N)
        return Answers(*(column.cpu() for column in columns))


def confusion_matrix(answers: Answers, n_classes: int) -> Tensor:
    """int64 CxC: how many samples of the class of a row were taken for the class of a column."""
    flat_N = answers.labels_N * n_classes + answers.answers_N
    return flat_N.bincount(minlength=n_classes**2).reshape(n_classes, n_classes)


def reliability_bins(answers: Answers) -> list[ReliabilityBin]:
    """The 15 equal bins of confidence over which the calibration error is summed."""
    bins_N = confidence_bins(answers.confidence_N)
    found = []
    for number in range(ECE_BINS):
        inside_N = bins_N == number
        count = int(inside_N.sum())
        found.append(
            ReliabilityBin(
                lower=number / ECE_BINS,
                upper=(number + 1) / ECE_BINS,
                samples=count,
                confidence=float(answers.confidence_N[inside_N].mean()) if count else None,
                accuracy=float(answers.correct_N[inside_N].mean()) if count else None,
            )
        )
    return found
