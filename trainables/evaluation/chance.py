"""Whether a network is right more often than by chance.

A teacher whose classes are in another order, whose images are normalised by other numbers, or whose weights
are another network's, gives answers as sure as any, and only labels tell.
"""

from __future__ import annotations

from typing import Final

import torch
from pydantic import Field
from torch import Tensor

from trainables.config import Config

# N = samples of the split, C = classes, K = counts

WEAK: Final = 0.2
"""A network that is as far from chance on its way to always being right is weak, and not yet suspicious."""
LEVEL: Final = 0.01
"""How seldom chance may look like knowledge."""
WRONGED: Final = 0.001
"""How seldom a weak network may be suspected."""


class AgainstChance(Config):
    """How often a network is right, beside how often it would be with labels that it knows nothing of."""

    images: int = Field(ge=1)
    right: int = Field(ge=0)
    by_chance: float = Field(ge=0, le=1, description="fraction: sum over classes of answered x labelled")

    @property
    def is_better(self) -> bool:
        """Whether more answers are right than chance would explain: an exact binomial test at 1 %."""
        return _at_least(self.right, self.images, self.by_chance) <= LEVEL

    @property
    def is_suspicious(self) -> bool:
        """Whether chance explains it, and a network that has learned even a little would be better.

        The second is an exact binomial test too, so few images, which show nothing, condemn nobody; a network
        above chance by a fifth of the way to always right, or by more, passes 999 times of 1,000.
        """
        weak = self.by_chance + WEAK * (1 - self.by_chance)
        return not self.is_better and 1 - _at_least(self.right + 1, self.images, weak) <= WRONGED


def against_chance(answers_N: Tensor, labels_N: Tensor) -> AgainstChance:
    """Answers and labels (int64, N of each) as a test needs them.

    Chance is how often equally many answers of each class would be right if they were dealt out at random:
    a network that always names the most frequent class is right by chance alone, however frequent that is.
    """
    n_images = len(labels_N)
    count = int(max(answers_N.max(), labels_N.max())) + 1
    shares = [values_N.bincount(minlength=count).double() / n_images for values_N in (answers_N, labels_N)]
    return AgainstChance(
        images=n_images,
        right=int((answers_N == labels_N).sum()),
        by_chance=min(1.0, float((shares[0] * shares[1]).sum())),
    )


def _at_least(count: int, trials: int, probability: float) -> float:
    """The probability of so many successes or more."""
    if count <= 0:
        return 1.0
    if count > trials or probability <= 0:
        return 0.0
    if probability >= 1:
        return 1.0
    counts_K = torch.arange(count, trials + 1, dtype=torch.float64)
    n, p = torch.tensor(trials, dtype=torch.float64), torch.tensor(probability, dtype=torch.float64)
    log_choose_K = torch.lgamma(n + 1) - torch.lgamma(counts_K + 1) - torch.lgamma(n - counts_K + 1)
    log_K = log_choose_K + counts_K * torch.log(p) + (n - counts_K) * torch.log1p(-p)
    return min(1.0, float(log_K.logsumexp(dim=0).exp()))
