"""DeiT's distillation token: numbers worked out by hand, which head hears whom, weights of both forms."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.numerics.reference import DIGITS
from trainables.config.representation.inputs import DeitConfig
from trainables.objectives.representation.deit import DeitObjective, hard_distillation
from trainables.signals import Labelling, Losses, Mixing, Signals, TeacherSignal

# B = samples in the batch, C = classes
ZS = [[1.0, 0.0, -1.0], [0.0, 0.0, 0.0]]
ZT = [[2.0, 1.0, 0.0], [0.0, 3.0, 0.0]]
LABELS = [2, 1]
CLASS_HEAD = [[0.0, math.log(2.0), 0.0], [0.0, 0.0, math.log(3.0)]]


def exact(values: Any, *, grad: bool = False) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def signals_of(
    class_BC: Tensor | None = None, distilled_BC: Tensor | None = None, teacher_BC: Tensor | None = None
) -> Signals:
    class_BC = exact(CLASS_HEAD, grad=True) if class_BC is None else class_BC
    distilled_BC = exact(ZS, grad=True) if distilled_BC is None else distilled_BC
    teacher_BC = exact(ZT) if teacher_BC is None else teacher_BC
    size = len(class_BC)
    return Signals(
        student={"weak": (class_BC + distilled_BC) / 2},
        teacher={"weak": TeacherSignal(teacher_BC, torch.ones(size))},
        labels_B=torch.tensor(LABELS[:size]),
        epoch=1,
        features={"weak": {"class_logits": class_BC, "distillation_logits": distilled_BC}},
    )


def deit(signals: Signals, **fields: Any) -> Losses:
    return DeitObjective(DeitConfig(**fields))(signals)


def test_hard_distillation_has_the_worked_value() -> None:
    """The teacher says 0 and 1: log(1 + 1/e + 1/e²) = 0.407606, and log 3; the labels are other ones."""
    expected = (0.407606 + math.log(3)) / 2
    assert hard_distillation(exact(ZS), exact(ZT)).item() == pytest.approx(expected, abs=DIGITS)


def test_the_hard_form_is_half_of_each_heads_cross_entropy() -> None:
    """Class head: p(2) = 1/4 of the first, p(1) = 1/5 of the second image."""
    losses = deit(signals_of())
    ce, distilled = (math.log(4) + math.log(5)) / 2, (0.407606 + math.log(3)) / 2
    assert losses.terms["ce"].item() == pytest.approx(ce, rel=1e-12)
    assert losses.terms["distillation"].item() == pytest.approx(distilled, abs=DIGITS)
    assert losses.total.item() == pytest.approx((ce + distilled) / 2, abs=DIGITS)


@pytest.mark.parametrize(("temperature", "value"), [(1.0, 0.366009), (3.0, 0.554780), (4.0, 0.553157)])
def test_the_soft_form_has_the_worked_divergence_of_the_distillation_head(
    temperature: float, value: float
) -> None:
    losses = deit(signals_of(), form="soft", temperature=temperature)
    assert losses.terms["distillation"].item() == pytest.approx(value, abs=DIGITS)
    ce = (math.log(4) + math.log(5)) / 2
    assert losses.total.item() == pytest.approx(0.9 * ce + 0.1 * value, abs=DIGITS)


def test_each_form_has_the_papers_weights_where_none_are_given() -> None:
    hard, soft = DeitConfig(), DeitConfig.from_plain({"form": "soft"})
    assert (hard.ce_weight, hard.distillation_weight, hard.kd_weight) == (0.5, 0.5, 0.0)
    assert (soft.ce_weight, soft.distillation_weight, soft.temperature) == (0.9, 0.1, 3.0)
    given = DeitConfig.from_plain({"form": "soft", "ce_weight": 0.3})
    assert (given.ce_weight, given.distillation_weight) == (0.3, 0.1)
    assert DeitConfig.from_plain(soft.plain()) == soft


@pytest.mark.parametrize("form", ["hard", "soft"])
def test_labels_teach_the_class_head_alone_and_the_teacher_the_distillation_head_alone(form: str) -> None:
    for only, heads in (("ce_weight", (True, False)), ("distillation_weight", (False, True))):
        weights = {"ce_weight": 0.0, "distillation_weight": 0.0} | {only: 1.0}
        signals = signals_of()
        torch.autograd.backward([deit(signals, form=form, **weights).total])
        moved = [bool(logits_BC.grad.abs().sum() > 0) for logits_BC in signals.features["weak"].values()]  # type: ignore[union-attr]
        assert tuple(moved) == heads


def test_no_gradient_reaches_the_teacher() -> None:
    teacher_BC = exact(ZT, grad=True)
    torch.autograd.backward([deit(signals_of(teacher_BC=teacher_BC), form="soft", kd_weight=1.0).total])
    assert teacher_BC.grad is None


@pytest.mark.parametrize("form", ["hard", "soft"])
def test_gradients_are_those_of_finite_differences(form: str) -> None:
    assert torch.autograd.gradcheck(
        lambda class_BC, distilled_BC: (
            deit(signals_of(class_BC, distilled_BC), form=form, kd_weight=0.7).total
        ),
        (exact(CLASS_HEAD, grad=True), exact(ZS, grad=True)),
        rtol=1e-6,
        atol=1e-9,
    )


def test_soft_targets_for_the_mean_of_both_heads_compose_with_it() -> None:
    same_BC = exact(ZS)
    losses = deit(signals_of(same_BC, same_BC), kd_weight=2.0)
    assert losses.terms["kd"].item() == pytest.approx(0.554780, abs=DIGITS)
    halves = 0.5 * losses.terms["ce"].item() + 0.5 * losses.terms["distillation"].item()
    assert losses.total.item() == pytest.approx(halves + 2 * 0.554780, abs=2 * DIGITS)


def test_smoothing_and_mixing_are_of_the_labels_and_not_of_what_the_teacher_says() -> None:
    plain = signals_of()
    mixing = Mixing(torch.tensor([[2, 1], [1, 1]]), torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
    for changed in (replace(plain, label_smoothing=0.1), replace(plain, mixed={"weak": mixing})):
        losses, expected = deit(changed), deit(plain)
        assert losses.terms["distillation"].item() == expected.terms["distillation"].item()
        assert losses.terms["ce"].item() != pytest.approx(expected.terms["ce"].item())


def test_the_loss_does_not_change_with_a_constant_in_a_row_of_the_teacher() -> None:
    """A cache in fp16 takes the largest logit off each row."""
    shifted_BC = exact(ZT) - exact(ZT).amax(dim=-1, keepdim=True)
    for form in ("hard", "soft"):
        one, other = deit(signals_of(), form=form), deit(signals_of(teacher_BC=shifted_BC), form=form)
        assert one.total.item() == pytest.approx(other.total.item(), rel=1e-12)


def test_unlabelled_images_teach_the_distillation_head_alone() -> None:
    plain = signals_of()
    signals = replace(plain, labels_B=torch.tensor([2, -1]), labelling=Labelling(1))
    losses = deit(signals)
    assert losses.terms["ce"].item() == pytest.approx(math.log(4), rel=1e-12)
    assert losses.terms["distillation"].item() == deit(plain).terms["distillation"].item()


def test_the_heads_agree_on_as_much_as_they_do() -> None:
    assert deit(signals_of()).gauges["agreement"].item() == 0.0
    same_BC = exact(ZT)
    assert deit(signals_of(same_BC, same_BC)).gauges["agreement"].item() == 1.0


@pytest.mark.parametrize("form", ["hard", "soft"])
def test_one_sample_of_two_classes_is_finite_even_for_extreme_logits(form: str) -> None:
    class_BC, distilled_BC = exact([[200.0, -200.0]], grad=True), exact([[-200.0, 200.0]], grad=True)
    signals = replace(
        signals_of(class_BC, distilled_BC, exact([[100.0, -100.0]])), labels_B=torch.tensor([1])
    )
    losses = deit(signals, form=form)
    torch.autograd.backward([losses.total])
    assert losses.total.isfinite()
    for logits_BC in (class_BC, distilled_BC):
        assert logits_BC.grad is not None
        assert logits_BC.grad.isfinite().all()


def test_logits_in_half_precision_are_compared_in_fp32() -> None:
    half = signals_of(exact(CLASS_HEAD).bfloat16(), exact(ZS).bfloat16(), exact(ZT).float())
    for form in ("hard", "soft"):
        losses = deit(half, form=form)
        assert losses.total.dtype is torch.float32
        assert losses.total.item() == pytest.approx(deit(signals_of(), form=form).total.item(), rel=1e-2)


def test_signals_without_both_heads_and_teachers_of_other_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="no feature 'class_logits'"):
        deit(replace(signals_of(), features={}))
    with pytest.raises(ValueError, match="differ in shape"):
        deit(signals_of(teacher_BC=exact([[1.0, 0.0], [0.0, 1.0]])))
