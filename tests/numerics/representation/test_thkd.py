"""The teacher's classifier as a second head: worked numbers of both forms, distances, the bridge."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from tests.numerics.reference import DIGITS
from tests.numerics.representation.embedding_signals import (
    BIAS,
    GIVEN,
    TAUGHT,
    WEIGHT,
    classifier,
    is_finite,
    numbers,
    random,
    setting_for,
    signals_of,
)
from trainables.config.objectives import KdConfig, ThkdConfig
from trainables.errors import TrialFailed
from trainables.objectives import KdObjective, ThkdObjective
from trainables.signals import Labelling, Losses

# B = samples in the batch, C = classes, D = numbers in an embedding
LABELS = [0, 1]


def thkd(given: Tensor | None = None, **fields: Any) -> ThkdObjective:
    torch.manual_seed(0)
    given = numbers(GIVEN) if given is None else given
    setting = setting_for(given, numbers(TAUGHT), classifier=fields.pop("classifier", classifier()))
    return ThkdObjective(ThkdConfig(**fields), setting).to(given.dtype)


def told(objective: ThkdObjective, given: Tensor | None = None, **more: Any) -> Losses:
    given = numbers(GIVEN) if given is None else given
    taught_BD = more.pop("taught_BD", numbers(TAUGHT * 8)[: len(given)].to(given.dtype))
    return objective(signals_of(given, taught_BD, **{"labels": LABELS * (len(given) // 2), **more}))


def test_the_terms_of_both_heads_have_the_worked_values() -> None:
    terms = {name: term.item() for name, term in told(thkd()).terms.items()}
    expected = {"ce": 0.753109, "ce_head": 1.022950, "kd": 0.611971, "kd_head": 0.168160}
    assert terms == pytest.approx(expected, abs=DIGITS)


def test_the_papers_form_mixes_both_heads_by_the_share() -> None:
    soft = told(thkd(form="paper", share=0.3, ce_weight=0.0, kd_weight=1.0)).total
    hard = told(thkd(form="paper", share=0.3, ce_weight=1.0, kd_weight=0.0)).total
    assert soft.item() == pytest.approx(0.478827, abs=DIGITS)
    assert hard.item() == pytest.approx(0.834061, abs=DIGITS)
    both = told(thkd(form="paper", share=0.3, ce_weight=0.5, kd_weight=2.0)).total
    assert both.item() == pytest.approx(0.5 * 0.834061 + 2 * 0.478827, abs=2 * DIGITS)


def test_the_released_form_has_labels_for_the_own_head_alone() -> None:
    losses = told(thkd())
    expected = 0.753109 + 1.5 * 0.611971 + 0.02 * 0.168160
    assert losses.total.item() == pytest.approx(expected, abs=3 * DIGITS)


def test_the_embedding_terms_have_the_worked_values() -> None:
    kde, cosine = (told(thkd(embedding=name, embedding_weight=3.0)) for name in ("kde", "cosine"))
    assert kde.terms["embedding"].item() == pytest.approx(1.171573, abs=DIGITS)
    assert cosine.terms["embedding"].item() == pytest.approx(1 - 0.5**0.5, abs=DIGITS)
    plain = told(thkd()).total.item()
    for losses in (kde, cosine):
        expected = plain + 3 * losses.terms["embedding"].item()
        assert losses.total.item() == pytest.approx(expected, rel=1e-12)


def test_the_sum_grows_with_the_batch_and_the_cosine_does_not() -> None:
    twice = numbers(GIVEN * 2)
    kde, cosine = (told(thkd(embedding=name), twice).terms["embedding"] for name in ("kde", "cosine"))
    assert kde.item() == pytest.approx(2 * 1.171573, abs=2 * DIGITS)
    assert cosine.item() == pytest.approx(1 - 0.5**0.5, abs=DIGITS)


def test_no_share_of_the_teachers_head_is_plain_distillation() -> None:
    signals = signals_of(numbers(GIVEN), numbers(TAUGHT), labels=LABELS)
    plain = KdObjective(KdConfig(ce_weight=1.0, kd_weight=1.5))(signals)
    assert told(thkd(form="paper", share=0.0)).total.item() == pytest.approx(plain.total.item(), rel=1e-12)


def test_an_equal_embedding_has_the_teachers_answer() -> None:
    assert told(thkd(), numbers(TAUGHT)).terms["kd_head"].item() == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("form", ["paper", "released"])
@pytest.mark.parametrize("embedding", ["none", "cosine", "kde"])
@pytest.mark.parametrize("width", [2, 3])
def test_the_gradient_is_that_of_differences(form: str, embedding: str, width: int) -> None:
    given_BD, own_BC = random(1, 4, width, grad=True), random(2, 4, 3, grad=True)
    objective = thkd(given_BD, form=form, embedding=embedding, head_weight=1.0)

    def total(given_BD: Tensor, own_BC: Tensor) -> Tensor:
        return told(objective, given_BD, own_BC=own_BC).total

    assert torch.autograd.gradcheck(total, (given_BD, own_BC), rtol=1e-6, atol=1e-8)


def test_a_bridge_stands_where_the_option_says() -> None:
    narrow, same = random(1, 2, 5), numbers(GIVEN)
    for given, bridge, shapes in (
        (narrow, "auto", {"bridge.weight": (2, 5), "bridge.bias": (2,)}),
        (same, "auto", {}),
        (same, "never", {}),
        (same, "always", {"bridge.weight": (2, 2), "bridge.bias": (2,)}),
    ):
        objective = thkd(given, bridge=bridge)
        assert {name: tuple(p.shape) for name, p in objective.state_dict().items()} == shapes
        assert told(objective, given).total.isfinite()
    with pytest.raises(TrialFailed, match=r"has 5 numbers, .* takes 2; set objective thkd's `bridge: auto`"):
        thkd(narrow, bridge="never")


def test_the_bridge_learns_and_the_classifier_is_bitwise_the_same() -> None:
    given_BD = random(1, 4, 5, grad=True)
    layer = classifier()
    layer.weight_CD.requires_grad_()
    objective = thkd(given_BD, classifier=layer, embedding="cosine")
    optimiser = torch.optim.SGD(objective.parameters(), lr=0.1, weight_decay=0.1)
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    taught_BD = random(2, 4, 2, grad=True)
    told(objective, given_BD, taught_BD=taught_BD).total.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    assert layer.weight_CD.grad is None
    assert taught_BD.grad is None
    assert torch.equal(objective.classifier.weight_CD, numbers(WEIGHT))
    assert torch.equal(objective.classifier.bias_C, numbers(BIAS))
    assert all(not torch.equal(value, before[name]) for name, value in objective.state_dict().items())


def test_a_constant_on_each_row_of_the_teachers_logits_changes_nothing() -> None:
    teacher_BC = random(4, 2, 3)
    shifted_BC = teacher_BC - teacher_BC.amax(dim=-1, keepdim=True)
    one, other = (told(thkd(), teacher_BC=values_BC).total for values_BC in (teacher_BC, shifted_BC))
    assert other.item() == pytest.approx(one.item(), rel=1e-12)


def test_the_embedding_is_asked_for_where_a_distance_is_added() -> None:
    assert ThkdConfig().teacher_features == ()
    assert ThkdConfig(embedding="kde").teacher_features == ("embedding",)


def test_unlabelled_samples_count_for_the_soft_targets_and_not_for_the_labels_of_either_head() -> None:
    given_BD = random(1, 4, 2)
    part = told(thkd(), given_BD, labels=[0, 1, -1, -1], labelling=Labelling(2))
    whole, alone = told(thkd(), given_BD, labels=[0, 1, 2, 0]), told(thkd(), given_BD[:2])
    for name in ("kd", "kd_head"):
        assert part.terms[name].item() == whole.terms[name].item()
    for name in ("ce", "ce_head"):
        assert part.terms[name].item() == alone.terms[name].item() != whole.terms[name].item()


@pytest.mark.parametrize("form", ["paper", "released"])
def test_one_sample_of_two_classes_and_zeros_have_a_finite_gradient(form: str) -> None:
    two = classifier(weight=WEIGHT[:2], bias=BIAS[:2])
    for given_BD in (random(1, 1, 5, grad=True), torch.zeros(2, 5).double().requires_grad_()):
        objective = thkd(given_BD, form=form, embedding="kde", classifier=two)
        rows = len(given_BD)
        own_BC = random(3, rows, 2, grad=True)
        losses = told(objective, given_BD, own_BC=own_BC, teacher_BC=random(4, rows, 2), labels=[1] * rows)
        assert is_finite(losses.total, [given_BD, own_BC, *objective.parameters()])


def test_autocast_changes_nothing() -> None:
    given_BD = random(1, 8, 5, dtype=torch.float32)
    objective = thkd(given_BD, embedding="cosine")
    plain = told(objective, given_BD).total
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = told(objective, given_BD).total
    assert half.dtype is torch.float32
    assert half.item() == plain.item()


def test_the_order_of_samples_does_not_matter() -> None:
    given_BD, order = random(1, 4, 5), torch.tensor([2, 0, 3, 1])
    objective = thkd(given_BD, embedding="kde")
    logits_BC, labels, taught_BD = random(3, 4, 3), [0, 1, 2, 1], random(5, 4, 2)
    one = told(
        objective, given_BD, own_BC=logits_BC, teacher_BC=-logits_BC, labels=labels, taught_BD=taught_BD
    )
    other = told(
        objective,
        given_BD[order],
        own_BC=logits_BC[order],
        teacher_BC=-logits_BC[order],
        labels=[labels[row] for row in order],
        taught_BD=taught_BD[order],
    )
    assert other.total.item() == pytest.approx(one.total.item(), rel=1e-12)


def test_a_share_that_leaves_the_own_head_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="less than 1"):
        ThkdConfig(share=1.0)
