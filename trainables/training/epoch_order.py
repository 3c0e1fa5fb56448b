"""The order in which an epoch goes through the training split."""

# N = training samples, P = pairs of them

from __future__ import annotations

import torch
from torch import Tensor

from trainables.config.training import Sampling


def epoch_rows(labels_N: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """int64 rows of the training split, on the CPU: N of them, or with pairs up to one more for each class.

    Natural: each row once. Class-balanced: each class that occurs equally often (to within one), whatever it
    has; its samples are gone through in a new order before one of them comes again. All rows of an epoch are
    of its one view, so what comes again looks the same within an epoch and different in the next.

    Pairs: each row once, and places 2k and 2k + 1 hold rows of one class, as MCL's batches do (Yang et al.,
    AAAI 2022). Of a class with an odd number of rows the last one is joined by another of them, which comes
    twice; the only row of a class by itself.
    """
    count = len(labels_N)
    if sampling is Sampling.NATURAL:
        return torch.randperm(count, generator=generator)
    labels_N = labels_N.cpu()
    if sampling is Sampling.PAIRS:
        return _pairs(labels_N, generator)
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


def _pairs(labels_N: Tensor, generator: torch.Generator) -> Tensor:
    pairs = [torch.empty(0, 2, dtype=torch.int64)]
    for label in labels_N.unique().tolist():
        rows = (labels_N == label).nonzero().squeeze(1)
        rows = rows[torch.randperm(len(rows), generator=generator)]
        if len(rows) % 2:
            # Of all but the last row, which is the one that has no other.
            again = int(torch.randint(max(len(rows) - 1, 1), (1,), generator=generator))
            rows = torch.cat([rows, rows[again : again + 1]])
        pairs.append(rows.view(-1, 2))
    pairs_P2 = torch.cat(pairs)
    return pairs_P2[torch.randperm(len(pairs_P2), generator=generator)].flatten()
