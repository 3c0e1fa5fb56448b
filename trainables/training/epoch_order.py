"""The order in which an epoch goes through the training split."""

# N = training samples

from __future__ import annotations

import torch
from torch import Tensor

from trainables.config.training import Sampling


def epoch_rows(labels_N: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """N int64 rows of the training split, on the CPU.

    Natural: each row once. Class-balanced: each class that occurs equally often (to within one), whatever it
    has; its samples are gone through in a new order before one of them comes again. All rows of an epoch are
    of its one view, so what comes again looks the same within an epoch and different in the next.
    """
    count = len(labels_N)
    if sampling is Sampling.NATURAL:
        return torch.randperm(count, generator=generator)
    labels_N = labels_N.cpu()
    classes = labels_N.bincount().nonzero().squeeze(1)
    quotas = torch.full((len(classes),), count // len(classes))
    quotas[torch.randperm(len(classes), generator=generator)[: count % len(classes)]] += 1
    drawn = [
        _drawn((labels_N == label).nonzero().squeeze(1), int(quota), generator)
        for label, quota in zip(classes.tolist(), quotas.tolist(), strict=True)
    ]
    return torch.cat(drawn)[torch.randperm(count, generator=generator)]


def _drawn(rows: Tensor, quota: int, generator: torch.Generator) -> Tensor:
    rounds = -(-quota // len(rows))
    orders = [rows[torch.randperm(len(rows), generator=generator)] for _ in range(rounds)]
    return torch.cat([rows[:0], *orders])[:quota]
