"""Which answers of a teacher are passed on, by the place that the right item has in them (SSKD)."""

# A = rows, N = items that a row scores

from __future__ import annotations

import torch
from torch import Tensor


def rank_A(scores_AN: Tensor, right_A: Tensor) -> Tensor:
    """int64: the place of the right item in each row, its items sorted by descending score; 0 is first.

    Items of the same score keep their order, so that ties are decided alike everywhere.
    """
    right_A1 = right_A[:, None]
    own_A1 = scores_AN.gather(-1, right_A1)
    is_before_AN = torch.arange(scores_AN.shape[-1], device=scores_AN.device) < right_A1
    return ((scores_AN > own_A1) | ((scores_AN == own_A1) & is_before_AN)).sum(dim=-1)


def kept_A(ranks_A: Tensor, ratio: float) -> Tensor:
    """bool: all rows of rank 0, and of the others int(ratio · their number), the smallest ranks first.

    (SSKD: Xu et al., ECCV 2020, arXiv 2006.07114.) Of equal ranks the first rows are kept. The ratio is of
    the wrong rows alone. Nothing waits for a GPU.
    """
    order_A = ranks_A.argsort(stable=True)
    place_A = torch.empty_like(order_A)
    place_A[order_A] = torch.arange(len(order_A), device=order_A.device)
    n_right = (ranks_A == 0).sum()
    n_wrong_kept = (ratio * (len(ranks_A) - n_right).double()).floor()
    return place_A < n_right + n_wrong_kept


def mean_of_kept(values_A: Tensor, is_kept_A: Tensor) -> Tensor:
    """The mean of the values that are kept; 0 where none is."""
    # Multiplied and not selected: a selection would wait for a GPU to learn its size.
    return (values_A * is_kept_A).sum() / is_kept_A.sum().clamp(min=1)
