"""How good a network is on a split: accuracy, likelihood and calibration, on clean images."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.data import ImageSplit
from trainables.errors import DataError, TrialFailed
from trainables.models.modes import evaluating
from trainables.views.normalise import normalise

ECE_BINS = 15
MAX_LOGITS: Final = 1 << 28
"""More are not held together: so many take a GiB."""

UNEVEN: Final = 2
"""From so many times the samples of the smallest class on, the largest has too much weight in an accuracy."""

# N = samples of the split, C = classes


def evaluate(
    model: nn.Module,
    split: ImageSplit,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int,
    device: torch.device,
) -> dict[str, float]:
    """Figures of a network on unaltered images; its training modes are as before afterwards.

    `accuracy` is a fraction, `nll` the mean cross-entropy in nats, `ece` the expected calibration error
    over 15 equal bins of the largest probability (Guo et al., 2017): Σ_b n_b/N · |accuracy_b - confidence_b|.

    Raises:
        DataError: the split is empty.
        TrialFailed: a logit is not finite, so no figure would mean anything.
    """
    if len(split.labels) == 0:
        raise DataError("cannot evaluate on an empty split; give it at least one sample")
    with evaluating(model), torch.inference_mode():
        labels_N = split.labels.to(device)
        batches = (_logits(model, batch.to(device), mean, std) for batch in split.batches(batch_size))
        first_BC = next(batches)
        all_batches = itertools.chain([first_BC], batches)
        if len(labels_N) * first_BC.shape[1] <= MAX_LOGITS:
            return figures_of(torch.cat(list(all_batches)), labels_N)
        figures = FiguresByBatch(labels_N)
        for logits_BC in all_batches:
            figures.add(logits_BC)
        return figures.result()


def answers(
    model: nn.Module,
    split: ImageSplit,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int,
    device: torch.device,
) -> Tensor:
    """The class (int64, N of them, on the CPU) that a network gives each unaltered image of a split."""
    with evaluating(model), torch.inference_mode():
        batches = split.batches(batch_size)
        classes = [_logits(model, batch.to(device), mean, std).argmax(dim=-1).cpu() for batch in batches]
    return torch.cat(classes)


def logits_of(
    model: nn.Module,
    split: ImageSplit,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int,
    device: torch.device,
) -> Tensor:
    """fp32 logits of each unaltered image of a split, NxC, on the CPU.

    Raises:
        TrialFailed: one of them is not finite.
    """
    with evaluating(model), torch.inference_mode():
        batches = split.batches(batch_size)
        return torch.cat([finite_logits(model, batch.to(device), mean, std).cpu() for batch in batches])


def answer_figures(answers_N: Tensor, labels_N: Tensor) -> dict[str, float]:
    """What accuracy does not show: int64 answers and labels, N each.

    `answered_classes` counts the different answers. `balanced_accuracy`, the mean over the classes that occur
    of the fraction of their samples that is right (Brodersen et al., 2010), is given where classes are
    uneven: where the largest has more than twice the samples of the smallest.
    """
    figures = {"answered_classes": float((answers_N.bincount() > 0).sum())}
    counts_C = labels_N.bincount()
    right_C = labels_N[answers_N == labels_N].bincount(minlength=len(counts_C))
    occurs_C = counts_C > 0
    counts_C, right_C = counts_C[occurs_C], right_C[occurs_C]
    if counts_C.max() > UNEVEN * counts_C.min():
        figures["balanced_accuracy"] = float((right_C.double() / counts_C).mean())
    return figures


def figures_of(logits_NC: Tensor, labels_N: Tensor) -> dict[str, float]:
    """Accuracy, nll and ece of fp32 logits; see `evaluate`."""
    _refuse_non_finite(logits_NC)
    confidence_N, predicted_N = logits_NC.softmax(dim=-1).max(dim=-1)
    correct_N = (predicted_N == labels_N).float()
    return _figures(confidence_N, correct_N, F.cross_entropy(logits_NC, labels_N))


class FiguresByBatch:
    """The figures of `figures_of`, but for nll's last bits: three numbers a sample are held, not all."""

    def __init__(self, labels_N: Tensor) -> None:
        """Batches come in the order of these labels, on their device."""
        self._labels_N = labels_N
        self._rows: list[Tensor] = []
        self._first = 0

    def add(self, logits_BC: Tensor) -> None:
        """Take in the next batch's fp32 logits.

        Raises:
            TrialFailed: one of them is not finite.
        """
        _refuse_non_finite(logits_BC)
        labels_B = self._labels_N[self._first : self._first + len(logits_BC)]
        self._first += len(logits_BC)
        confidence_B, predicted_B = logits_BC.softmax(dim=-1).max(dim=-1)
        nll_B = F.cross_entropy(logits_BC, labels_B, reduction="none")
        self._rows.append(torch.stack([confidence_B, (predicted_B == labels_B).float(), nll_B]))

    def result(self) -> dict[str, float]:
        """The figures of all batches."""
        confidence_N, correct_N, nll_N = torch.cat(self._rows, dim=1)
        return _figures(confidence_N, correct_N, nll_N.mean())


def _figures(confidence_N: Tensor, correct_N: Tensor, nll: Tensor) -> dict[str, float]:
    ece = calibration_error(confidence_N, correct_N)
    values = torch.stack([correct_N.mean(), nll, ece]).tolist()  # one copy from the device
    return dict(zip(("accuracy", "nll", "ece"), values, strict=True))


def _refuse_non_finite(logits_NC: Tensor) -> None:
    if not bool(torch.isfinite(logits_NC).all()):
        raise TrialFailed("the network gives logits that are not finite; a lower learning rate may help")


def calibration_error(confidence_N: Tensor, correct_N: Tensor) -> Tensor:
    """Expected calibration error (Guo et al., 2017, eq. 3) over 15 equal bins of the confidence.

    torchmetrics gives the same number; it is not used here because it imports torchvision, which every
    worker would wait for.
    """
    gap_N = correct_N - confidence_N
    per_bin = torch.zeros(ECE_BINS, device=gap_N.device).index_add_(0, confidence_bins(confidence_N), gap_N)
    return per_bin.abs().sum() / len(gap_N)


def confidence_bins(confidence_N: Tensor) -> Tensor:
    """Of each sample the number, from 0, of its bin among 15 equal ones of the confidence; int64."""
    edges = torch.linspace(0, 1, ECE_BINS + 1, device=confidence_N.device)
    return torch.bucketize(confidence_N, edges, right=True).sub(1).clamp(0, ECE_BINS - 1)


def finite_logits(model: nn.Module, batch: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """fp32 logits of a batch of uint8 images on the network's device.

    Raises:
        TrialFailed: one of them is not finite.
    """
    logits_BC = _logits(model, batch, mean, std)
    _refuse_non_finite(logits_BC)
    return logits_BC


def _logits(model: nn.Module, batch: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    # The loop trains in channels_last, in which convolutions on a CPU are two to three times faster.
    images = normalise(batch, mean, std).contiguous(memory_format=torch.channels_last)
    logits: Tensor = model(images)
    return logits.float()
