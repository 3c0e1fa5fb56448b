"""Per-sample divergences between student and teacher logits, in log space and at least in fp32.

Every function takes the student first and never lets gradient reach the teacher. Half-precision logits are
promoted to fp32 before any softmax, so the values do not change under autocast; float64 stays float64.
"""

# B = samples in the batch, C = classes, K = images that are mixed into one

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.signals import Mixing, Signals
from trainables.tensors import at_least_fp32

_LEAST_DEVIATION: Final = 1e-4
"""Below it a row counts as flat: dividing by less turns the rounding of equal logits into large gradients."""


def cross_entropy(
    student_BC: Tensor, labels_B: Tensor, mixing: Mixing | None = None, *, smoothing: float = 0.0
) -> Tensor:
    """Mean over samples of -log softmax(student)[label].

    Where the images are mixed, the labels are too, and `labels_B` is not looked at: the mean over samples of
    -Σ_k share_k log softmax(student)[label_k] (Zhang et al., "mixup", ICLR 2018, arXiv 1710.09412).
    With smoothing, that part of each label is spread evenly over all classes, its own included.
    """
    if mixing is None:
        return F.cross_entropy(at_least_fp32(student_BC), labels_B, label_smoothing=smoothing)
    log_BC = F.log_softmax(at_least_fp32(student_BC), dim=-1)
    mixed = -(mixing.shares_BK * log_BC.gather(-1, mixing.labels_BK)).sum(dim=-1).mean()
    return (1 - smoothing) * mixed - smoothing * log_BC.mean() if smoothing else mixed


def label_loss(signals: Signals, bank: str) -> Tensor:
    """`cross_entropy` of the student on a bank, by the labels of what it shows, smoothed by the recipe.

    The mean is over the samples that have labels; it is 0 where none has.
    """
    student_BC, labels_B, labelling = signals.student[bank], signals.labels_B, signals.labelling
    if labelling is not None:
        if labelling.count == 0:
            return at_least_fp32(student_BC.detach()).new_zeros(())
        student_BC, labels_B = student_BC[: labelling.count], labels_B[: labelling.count]
    loss = cross_entropy(student_BC, labels_B, signals.mixed.get(bank), smoothing=signals.label_smoothing)
    return loss if labelling is None or labelling.scale == 1 else labelling.scale * loss


def confidence_B(logits_BC: Tensor) -> Tensor:
    """Largest softmax probability of each row at temperature 1, without gradient.

    The temperature is 1 whatever an objective uses: at T = 4 hardly any row would reach a threshold of 0.9.
    """
    return at_least_fp32(logits_BC.detach()).softmax(dim=-1).amax(dim=-1)


def standardised(logits_BC: Tensor) -> Tensor:
    """(z - mean z) / (1e-7 + deviation of z) of each row, in fp32 (LSKD: Sun et al., arXiv 2403.01427).

    The deviation is the unbiased one (C - 1), and gradient flows through it. A row whose deviation is below
    1e-4 is divided by 1e-4.
    """
    logits_BC = at_least_fp32(logits_BC)
    centred_BC = logits_BC - logits_BC.mean(dim=-1, keepdim=True)
    # A norm and not std(): its gradient at a row of equal logits is 0 instead of NaN.
    norm_B1: Tensor = torch.linalg.vector_norm(centred_BC, dim=-1, keepdim=True)
    deviation_B1: Tensor = norm_B1 / (logits_BC.shape[-1] - 1) ** 0.5
    return centred_BC / (1e-7 + deviation_B1.clamp(min=_LEAST_DEVIATION))


def kd_divergence_B(student_BC: Tensor, teacher_BC: Tensor, *, temperature: float | Tensor) -> Tensor:
    """T² · KL(teacher ‖ student) of each row, both softened by T (Hinton et al., 2015, arXiv 1503.02531).

    A temperature that is a tensor gets its gradient too.

    Raises:
        ValueError: student and teacher differ in shape.
    """
    check_same_shape(student_BC, teacher_BC)
    student_log_BC = F.log_softmax(at_least_fp32(student_BC) / temperature, dim=-1)
    teacher_log_BC = F.log_softmax(at_least_fp32(teacher_BC.detach()) / temperature, dim=-1)
    return temperature**2 * _kl_B(student_log_BC, teacher_log_BC)


def dkd_parts_B(
    student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor, *, temperature: float | Tensor
) -> tuple[Tensor, Tensor]:
    """(TCKD, NCKD) of each row, each times T² (Zhao et al., CVPR 2022, arXiv 2203.08679).

    With a, b the softened probabilities that student and teacher give to the label:
    TCKD = b log(b/a) + (1-b) log((1-b)/(1-a)); NCKD = KL of the softened answers among the other classes.
    They hold K_T = TCKD + (1-b) · NCKD, with K_T of `kd_divergence_B`. With two classes NCKD is 0.

    Raises:
        ValueError: student and teacher differ in shape.
    """
    check_same_shape(student_BC, teacher_BC)
    student_odds_B, student_rest_BC = split_target(student_BC, labels_B, temperature=temperature)
    teacher_odds_B, teacher_rest_BC = split_target(teacher_BC.detach(), labels_B, temperature=temperature)
    tckd_B = _binary_kl_B(student_odds_B, teacher_odds_B)
    nckd_B = _kl_B(student_rest_BC, teacher_rest_BC)
    return temperature**2 * tckd_B, temperature**2 * nckd_B


def split_target(
    logits_BC: Tensor, labels_B: Tensor, *, temperature: float | Tensor
) -> tuple[Tensor, Tensor]:
    """(B log-odds of the label against the rest, BxC log-probabilities among the rest), softened by T.

    The label's own log-probability among the rest is the lowest finite number.
    """
    scaled_BC = at_least_fp32(logits_BC) / temperature
    is_target_BC = torch.arange(scaled_BC.shape[-1], device=scaled_BC.device) == labels_B[:, None]
    # The lowest finite number, not -inf: its probability and its gradient are exactly 0 as well,
    # while -inf would give -inf - (-inf) = NaN in the divergence.
    rest_BC = scaled_BC.masked_fill(is_target_BC, torch.finfo(scaled_BC.dtype).min)
    target_B = scaled_BC.gather(-1, labels_B[:, None]).squeeze(-1)
    return target_B - rest_BC.logsumexp(dim=-1), F.log_softmax(rest_BC, dim=-1)


def _binary_kl_B(student_odds_B: Tensor, teacher_odds_B: Tensor) -> Tensor:
    # log(1 - a) as logsigmoid(-odds) = logsumexp(rest) - logsumexp(all): it never underflows to log 0.
    student_log_B2 = torch.stack([F.logsigmoid(student_odds_B), F.logsigmoid(-student_odds_B)], dim=-1)
    teacher_log_B2 = torch.stack([F.logsigmoid(teacher_odds_B), F.logsigmoid(-teacher_odds_B)], dim=-1)
    return _kl_B(student_log_B2, teacher_log_B2)


def _kl_B(student_log_BC: Tensor, teacher_log_BC: Tensor) -> Tensor:
    """KL(teacher ‖ student) of each row of log-probabilities."""
    # F.kl_div computes the same, but torch.func cannot map it over the students of a pack.
    return (teacher_log_BC.exp() * (teacher_log_BC - student_log_BC)).sum(dim=-1)


def check_same_shape(student_BC: Tensor, teacher_BC: Tensor) -> None:
    """Refuse a teacher of other samples or classes.

    Raises:
        ValueError: student and teacher differ in shape.
    """
    # Without this a teacher of one row or one class would be broadcast in silence.
    if student_BC.shape != teacher_BC.shape:
        raise ValueError(
            f"student logits {tuple(student_BC.shape)} and teacher logits {tuple(teacher_BC.shape)} "
            "differ in shape; give both for the same samples and classes"
        )
