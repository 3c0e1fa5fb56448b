"""Draws of training samples for a contrast: negatives of other classes, positives of the same one."""

# B = samples in the batch, N = training samples, C = classes, L = candidates that the batch shares,
# K = negatives of each sample

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.config.representation.contrast import NegativeDraw, Shortage
from trainables.errors import TrialFailed
from trainables.tensors import to_device


@dataclass(frozen=True)
class Negatives:
    """Training samples that a batch is told from."""

    rows_L: Tensor
    """int64; candidates for all samples of the batch."""
    times_BL: Tensor
    """fp32; how often a candidate was drawn for a sample."""
    is_everything: bool = False
    """Whether the candidates are all training samples in their order, so that a bank need not be gathered."""


class ClassPools(nn.Module):
    """The training samples by class, and draws from them by torch's global generator.

    It is the CPU's: a course draws the same samples whatever its device.

    Negatives of a sample are labelled samples of other classes, each with the same probability. An unlabelled
    sample (label -1) is nobody's negative but another unlabelled one's, since it may be of any class; its own
    negatives are all samples but itself (inferred: the paper's data have labels).
    Nothing here is part of a state: it all follows from the labels.
    """

    def __init__(
        self, labels_N: Tensor, n_classes: int, *, negatives: int, draw: NegativeDraw, when_short: Shortage
    ) -> None:
        """`negatives` is what is asked for; `count` is K, what each sample draws.

        Raises:
            TrialFailed: a sample has no negatives, since all are of one class.
        """
        super().__init__()
        sizes_C = torch.bincount(labels_N[labels_N >= 0], minlength=n_classes)
        self.n_labelled = int(sizes_C.sum())
        self.n_samples = len(labels_N)
        largest = int(sizes_C.max())
        smallest_pool = self.n_labelled - largest if self.n_labelled else self.n_samples - 1
        if smallest_pool < 1:
            raise TrialFailed(
                f"all {self.n_labelled} labelled training samples are of one class, so there is no "
                "negative for any of them; a contrast with negatives needs samples of two classes"
            )
        self.repeats = when_short is Shortage.REPEAT and negatives > smallest_pool
        self.count = negatives if when_short is Shortage.REPEAT else min(negatives, smallest_pool)
        self.draw = draw
        # So many of the first ones of a random order may be no negatives of a sample.
        self._passed_over = largest + self.n_samples - self.n_labelled
        self.labels_N: Tensor
        self.sorted_N: Tensor
        self.starts_C: Tensor
        self.sizes_C: Tensor
        starts_C = self.n_samples - self.n_labelled + sizes_C.cumsum(dim=0) - sizes_C
        held = {"labels_N": labels_N, "sorted_N": labels_N.argsort(stable=True)}
        for name, value in {**held, "starts_C": starts_C, "sizes_C": sizes_C}.items():
            self.register_buffer(name, value.clone(), persistent=False)

    def negatives(self, rows_B: Tensor, labels_B: Tensor) -> Negatives:
        """K negatives of each sample; without replacement, unless K exceeds its pool and `repeats`."""
        everything_N = torch.arange(self.n_samples, device=rows_B.device)
        if self.draw is NegativeDraw.SAMPLE or self.repeats:
            distinct_BN = self._own_draws(self._eligible(everything_N, rows_B, labels_B))
            if not self.repeats:
                return Negatives(everything_N, distinct_BN.float(), is_everything=True)
            short_B = self._pool_sizes(labels_B) < self.count
            times_BN = torch.where(short_B[:, None], self._repeated(rows_B, labels_B), distinct_BN)
            return Negatives(everything_N, times_BN.float(), is_everything=True)
        enough = min(self.n_samples, self.count + self._passed_over)
        rows_L = to_device(torch.randperm(self.n_samples)[:enough], rows_B.device)
        n_classes = len(self.sizes_C)
        if self.n_labelled < self.n_samples or n_classes > len(labels_B):
            drawn_BL = self._first(self._eligible(rows_L, rows_B, labels_B))
            return Negatives(rows_L, drawn_BL.float())
        # Samples of one class have the same negatives: they are found once for each class.
        drawn_CL = self._first(self._eligible(rows_L, rows_B, torch.arange(n_classes, device=rows_B.device)))
        if enough < self.n_samples:
            return Negatives(rows_L, drawn_CL.float()[labels_B])
        in_order_CN = drawn_CL.index_select(1, rows_L.argsort())
        return Negatives(everything_N, in_order_CN.float()[labels_B], is_everything=True)

    def of_the_same_class(self, rows_B: Tensor, labels_B: Tensor) -> Tensor:
        """For each sample the row of a random training sample of its class, itself among them.

        For one without a label, or of a class that no training sample has, its own row.
        """
        class_B = labels_B.clamp(min=0)
        sizes_B = self.sizes_C[class_B]
        found_B = self.sorted_N[(self.starts_C[class_B] + _below(sizes_B)).clamp(max=self.n_samples - 1)]
        return torch.where((labels_B >= 0) & (sizes_B > 0), found_B, rows_B)

    def _eligible(self, rows_L: Tensor, rows_B: Tensor, labels_B: Tensor) -> Tensor:
        labels_L = self.labels_N[rows_L]
        others_BL = labels_L != labels_B[:, None]
        if self.n_labelled == self.n_samples:
            return others_BL
        return torch.where(labels_B[:, None] < 0, rows_L != rows_B[:, None], others_BL & (labels_L >= 0))

    def _first(self, eligible_BL: Tensor) -> Tensor:
        """The first K of the candidates that are eligible."""
        return eligible_BL & (eligible_BL.cumsum(dim=-1, dtype=torch.int32) <= self.count)

    def _own_draws(self, eligible_BN: Tensor) -> Tensor:
        """Each sample's K eligible ones with the smallest random keys, or all where they are fewer."""
        keys_BN = to_device(torch.rand(eligible_BN.shape), eligible_BN.device).masked_fill(~eligible_BN, 2.0)
        first_BK = keys_BN.topk(min(self.count, self.n_samples), largest=False).indices
        return torch.zeros_like(eligible_BN).scatter(1, first_BK, value=True) & eligible_BN

    def _pool_sizes(self, labels_B: Tensor) -> Tensor:
        others_B = self.n_labelled - self.sizes_C[labels_B.clamp(min=0)]
        return torch.where(labels_B < 0, self.n_samples - 1, others_B)

    def _repeated(self, rows_B: Tensor, labels_B: Tensor) -> Tensor:
        """How often each training sample comes in K draws with replacement from a sample's pool."""
        class_B = labels_B.clamp(min=0)
        drawn_BK = _below(self._pool_sizes(labels_B)[:, None].expand(-1, self.count))
        # Sorted by label, the unlabelled first; a pool leaves out one block, which is stepped over.
        place_BK = drawn_BK + self.n_samples - self.n_labelled
        place_BK = place_BK + self.sizes_C[class_B][:, None] * (place_BK >= self.starts_C[class_B][:, None])
        labelled_BK = self.sorted_N[place_BK.clamp(max=self.n_samples - 1)]
        found_BK = torch.where(labels_B[:, None] < 0, drawn_BK + (drawn_BK >= rows_B[:, None]), labelled_BK)
        times_BN = torch.zeros(len(rows_B), self.n_samples, dtype=torch.int64, device=rows_B.device)
        return times_BN.scatter_add(1, found_BK, torch.ones_like(found_BK))


def _below(bounds: Tensor) -> Tensor:
    """A random whole number from 0 to below each bound, each with the same probability (0 where it is 0)."""
    # In float64, as fp32 has no numbers for each row of large data; a product may round up to the bound.
    drawn = to_device(torch.rand(bounds.shape, dtype=torch.float64), bounds.device) * bounds
    return torch.minimum(drawn.long(), (bounds - 1).clamp(min=0))
