"""How good networks that were trained together are, each alone and all as one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from trainables.data import ImageSplit
from trainables.evaluation.metrics import finite_logits
from trainables.models.modes import evaluating

# N = samples of the split, B = samples in a batch, C = classes, K = networks


def accuracies(
    networks: Sequence[nn.Module],
    split: ImageSplit,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int,
    device: torch.device,
) -> tuple[list[float], float]:
    """Accuracy of each network on unaltered images, and that of the mean of all their probabilities.

    Each network sees each image once; its training modes are as before afterwards.

    Raises:
        TrialFailed: a logit is not finite, so no figure would mean anything.
    """
    with ExitStack() as stack, torch.inference_mode():
        for network in networks:
            stack.enter_context(evaluating(network))
        answers_BK = [_answers(networks, batch.to(device), mean, std) for batch in split.batches(batch_size)]
        right_N = torch.cat(answers_BK) == split.labels.to(device)[:, None]
    *each, together = right_N.float().mean(dim=0).tolist()
    return each, together


def _answers(
    networks: Sequence[nn.Module], images: Tensor, mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    """Bx(K + 1): the class that each network gives, then that of all as one."""
    logits_KBC = torch.stack([finite_logits(network, images, mean, std) for network in networks])
    together_BC = logits_KBC.softmax(dim=-1).mean(dim=0)
    return torch.stack([*logits_KBC.argmax(dim=-1), together_BC.argmax(dim=-1)], dim=-1)
