"""How good a network is on a split: accuracy, likelihood and calibration, on clean images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_calibration_error

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
        batches = torch.split(split.images, batch_size)
        logits_NC = torch.cat([_logits(model, batch.to(device), mean, std) for batch in batches])
        return figures_of(logits_NC, split.labels.to(device))


def figures_of(logits_NC: Tensor, labels_N: Tensor) -> dict[str, float]:
    """Accuracy, nll and ece of fp32 logits; see `evaluate`."""
    if not bool(torch.isfinite(logits_NC).all()):
        raise TrialFailed("the network gives logits that are not finite; a lower learning rate may help")
    # As probabilities: torchmetrics takes logits that all lie in [0, 1] for probabilities.
    ece = multiclass_calibration_error(
        logits_NC.softmax(dim=-1),
        labels_N,
        num_classes=logits_NC.shape[1],
        n_bins=ECE_BINS,
        norm="l1",
        validate_args=False,
    )
    accuracy = (logits_NC.argmax(dim=-1) == labels_N).float().mean()
    nll = F.cross_entropy(logits_NC, labels_N)
    values = torch.stack([accuracy, nll, ece]).tolist()  # one copy from the device
    return dict(zip(("accuracy", "nll", "ece"), values, strict=True))


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
