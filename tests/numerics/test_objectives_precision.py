"""Precision of every objective: float64, fp16 caches, autocast and large logits."""

from __future__ import annotations

from typing import Final

import pytest
import torch

from tests.numerics.random_signals import losses_of, random_labels, random_logits, signals_of, with_grad
from trainables.config import OBJECTIVE_CONFIGS, CrldConfig, Need
from trainables.objectives.terms.divergences import confidence_B

# B = samples in the batch, C = classes

NAMES: Final = tuple(OBJECTIVE_CONFIGS)
DISTILLING: Final = tuple(name for name, config in OBJECTIVE_CONFIGS.items() if config.teacher_banks)
# The others are served the teacher's own logits, see tests/unit/trainables/training/test_step_inputs.py.
SHIFTED: Final = tuple(name for name in DISTILLING if Need.UNSHIFTED not in OBJECTIVE_CONFIGS[name].needs)


@pytest.mark.parametrize("name", NAMES)
def test_float64_logits_stay_float64(name: str) -> None:
    students = {bank: value_BC.double() for bank, value_BC in random_logits(1, 4, 5).items()}
    teachers = {bank: value_BC.double() for bank, value_BC in random_logits(2, 4, 5).items()}
    assert (
        losses_of(name, signals_of(students, teachers, random_labels(3, 4, 5))).total.dtype is torch.float64
    )


@pytest.mark.parametrize("name", SHIFTED)
def test_a_teacher_kept_up_to_a_constant_per_row_gives_the_same_loss(name: str) -> None:
    students, teachers, labels_B = (
        random_logits(1, 32, 10),
        random_logits(2, 32, 10),
        random_labels(3, 32, 10),
    )
    kept = {bank: value_BC - value_BC.amax(dim=-1, keepdim=True) for bank, value_BC in teachers.items()}
    torch.testing.assert_close(
        losses_of(name, signals_of(students, kept, labels_B, featured=teachers)).total,
        losses_of(name, signals_of(students, teachers, labels_B)).total,
    )


@pytest.mark.parametrize("name", DISTILLING)
def test_teacher_logits_rounded_to_fp16_change_the_loss_by_less_than_a_hundredth(name: str) -> None:
    students, teachers, labels_B = (
        random_logits(1, 64, 10),
        random_logits(2, 64, 10),
        random_labels(3, 64, 10),
    )
    rounded = {
        bank: rounded_BC if name in SHIFTED else rounded_BC + value_BC.amax(dim=-1, keepdim=True)
        for bank, value_BC in teachers.items()
        for rounded_BC in [(value_BC - value_BC.amax(dim=-1, keepdim=True)).half().float()]
    }
    exact_losses = losses_of(name, signals_of(students, teachers, labels_B))
    rounded_losses = losses_of(name, signals_of(students, rounded, labels_B, featured=teachers))
    torch.testing.assert_close(rounded_losses.total, exact_losses.total, rtol=1e-2, atol=0)
    for term, value in exact_losses.terms.items():
        torch.testing.assert_close(rounded_losses.terms[term], value, rtol=1e-2, atol=0)


def test_teacher_logits_rounded_to_fp16_keep_the_masks_away_from_the_thresholds() -> None:
    teachers = random_logits(2, 512, 10, scale=3.0)
    rounded = {
        bank: (value_BC - value_BC.amax(dim=-1, keepdim=True)).half().float()
        for bank, value_BC in teachers.items()
    }
    config = CrldConfig()
    for bank, threshold in (("weak", config.weak_threshold), ("strong", config.strong_threshold)):
        confident_B = confidence_B(teachers[bank])
        clear_B = (confident_B - threshold).abs() > 2e-3
        assert clear_B.float().mean() > 0.9
        kept_B, kept_rounded_B = confident_B >= threshold, confidence_B(rounded[bank]) >= threshold
        assert torch.equal(kept_B[clear_B], kept_rounded_B[clear_B])


@pytest.mark.parametrize("name", NAMES)
def test_autocast_changes_neither_loss_nor_gradient_at_logits_of_sixty(name: str) -> None:
    teachers, labels_B = random_logits(2, 16, 10, scale=30.0), random_labels(3, 16, 10)
    totals, gradients = [], []
    for enabled in (False, True):
        students = with_grad(random_logits(1, 16, 10, scale=30.0))
        assert min(value_BC.abs().max().item() for value_BC in [*students.values(), *teachers.values()]) > 60
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            losses = losses_of(name, signals_of(students, teachers, labels_B))
        assert losses.total.dtype is torch.float32
        totals.append(losses.total.item())
        inputs = [students[bank] for bank in OBJECTIVE_CONFIGS[name].banks]
        gradients.append(torch.autograd.grad(losses.total, inputs))
    assert all(torch.isfinite(gradient_BC).all() for gradient_BC in gradients[0])
    assert totals[0] == totals[1]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_student_logits_are_promoted_before_the_softmax(name: str, dtype: torch.dtype) -> None:
    halves = {bank: value_BC.to(dtype) for bank, value_BC in random_logits(1, 16, 10, scale=30.0).items()}
    teachers, labels_B = random_logits(2, 16, 10, scale=30.0), random_labels(3, 16, 10)
    singles = {bank: value_BC.float() for bank, value_BC in halves.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = losses_of(name, signals_of(halves, teachers, labels_B))
    assert losses.total.item() == losses_of(name, signals_of(singles, teachers, labels_B)).total.item()


@pytest.mark.parametrize("name", NAMES)
def test_a_model_under_autocast_gets_a_finite_gradient(name: str) -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(4, 10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        students = {bank: head(value_BC) for bank, value_BC in random_logits(1, 16, 4, scale=60.0).items()}
        assert students["weak"].dtype is torch.bfloat16
        losses = losses_of(
            name, signals_of(students, random_logits(2, 16, 10, scale=30.0), random_labels(3, 16, 10))
        )
    torch.autograd.backward([losses.total])
    assert head.weight.grad is not None
    assert torch.isfinite(head.weight.grad).all()
    assert head.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_fp32_agrees_with_float64_at_logits_of_sixty(name: str) -> None:
    students, teachers = random_logits(1, 16, 10, scale=30.0), random_logits(2, 16, 10, scale=30.0)
    labels_B = random_labels(3, 16, 10)
    exact = losses_of(
        name,
        signals_of(
            {bank: value_BC.double() for bank, value_BC in students.items()},
            {bank: value_BC.double() for bank, value_BC in teachers.items()},
            labels_B,
        ),
    )
    single = losses_of(name, signals_of(students, teachers, labels_B))
    for term, value in exact.terms.items():
        assert single.terms[term].item() == pytest.approx(value.item(), rel=1e-5, abs=1e-4)
