"""How good a network is on a split: accuracy, likelihood and calibration, on clean images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.data import ImageSplit
from trainables.errors import DataError, TrialFailed
from trainables.views.normalise import normalise

ECE_BINS = 15

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
        batches = split.batches(batch_size)
        logits_NC = torch.cat([_logits(model, batch.to(device), mean, std) for batch in batches])
        return figures_of(logits_NC, split.labels.to(device))


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


def figures_of(logits_NC: Tensor, labels_N: Tensor) -> dict[str, float]:
    """Accuracy, nll and ece of fp32 logits; see `evaluate`."""
    if not bool(torch.isfinite(logits_NC).all()):
        raise TrialFailed("the network gives logits that are not finite; a lower learning rate may help")
    confidence_N, predicted_N = logits_NC.softmax(dim=-1).max(dim=-1)
    correct_N = (predicted_N == labels_N).float()
    nll = F.cross_entropy(logits_NC, labels_N)
    ece = calibration_error(confidence_N, correct_N)
    values = torch.stack([correct_N.mean(), nll, ece]).tolist()  # one copy from the device
    return dict(zip(("accuracy", "nll", "ece"), values, strict=True))


def calibration_error(confidence_N: Tensor, correct_N: Tensor) -> Tensor:
    """Expected calibration error (Guo et al., 2017, eq. 3) over 15 equal bins of the confidence.

    torchmetrics gives the same number; it is not used here because it imports torchvision, which every
    worker would wait for.
    """
    edges = torch.linspace(0, 1, ECE_BINS + 1, device=confidence_N.device)
    bins_N = torch.bucketize(confidence_N, edges, right=True).sub(1).clamp(0, ECE_BINS - 1)
    gap_N = correct_N - confidence_N
    per_bin = torch.zeros(ECE_BINS, device=gap_N.device).index_add_(0, bins_N, gap_N)
    return per_bin.abs().sum() / len(gap_N)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; every part gets its own mode back, since some may be frozen in evaluation mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _logits(model: nn.Module, batch: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    # The loop trains in channels_last, in which convolutions on a CPU are two to three times faster.
    images = normalise(batch, mean, std).contiguous(memory_format=torch.channels_last)
    logits: Tensor = model(images)
    return logits.float()
