"""TinTeM: worked numbers, invariances, which part learns from which term, and tokens of other numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.numerics.reference import DIGITS
from trainables.config.representation.tokens import TintemConfig
from trainables.errors import TrialFailed
from trainables.objectives.representation.tintem import (
    TEMPERATURES,
    TintemObjective,
    angle_divergence,
    cosine_distance,
    pair_log_probabilities,
)
from trainables.signals import Labelling, Losses, Setting, Signals, TeacherSignal

# B = samples, P = tokens, D = numbers of a student's feature, E = numbers of a teacher's, C = classes
WIDE = [[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
NARROW = [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [-1.0, 0.0]]
STUDENT_TOKENS = [[[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [2.0, 0.0]]]
TARGET_TOKENS = [[[1.0, 1.0], [0.0, 2.0]], [[1.0, 1.0], [1.0, 1.0]]]


def rows(values: Any, *, grad: bool = False) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(width: int, seed: int) -> Tensor:
    q_DD: Tensor = torch.linalg.qr(random(width, width, seed=seed)).Q
    return q_DD


def made(student: tuple[int, ...], teacher: tuple[int, ...], **fields: Any) -> TintemObjective:
    config = TintemConfig(**fields)
    (name,) = config.student_features
    setting = Setting(8, 3, epochs=5, student_shapes={name: student}, teacher_shapes={name: teacher})
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return TintemObjective(config, setting).double()


def signals_of(name: str, student: Tensor, teacher: Tensor, **more: Any) -> Signals:
    size = len(student)
    answer = TeacherSignal(random(size, 3, seed=5), torch.ones(size), {name: teacher})
    return Signals(
        student={"weak": random(size, 3, seed=6).requires_grad_()},
        teacher={"weak": answer},
        labels_B=torch.arange(size) % 3,
        **{"epoch": 1, "features": {"weak": {name: student}}, **more},
    )


def on_tokens(**fields: Any) -> tuple[TintemObjective, Signals]:
    objective = made((3, 2), (3, 4), level="tokens", **fields)
    student, teacher = random(5, 3, 2).requires_grad_(), random(5, 3, 4, seed=1).requires_grad_()
    return objective, signals_of("tokens", student, teacher)


@pytest.mark.parametrize(("tau", "value"), [(1.0, 0.113755), (0.5, 0.376665), (0.1, 3.258772)])
def test_the_divergence_of_the_angles_has_the_worked_value(tau: float, value: float) -> None:
    found = angle_divergence(rows(WIDE), rows(NARROW), (tau,))
    assert found.item() == pytest.approx(value, abs=DIGITS)


def test_several_temperatures_are_averaged() -> None:
    found = angle_divergence(rows(WIDE), rows(NARROW), (1.0, 0.5, 0.1))
    assert found.item() == pytest.approx((0.113755 + 0.376665 + 3.258772) / 3, abs=DIGITS)
    assert pytest.approx([0.01 * k for k in range(1, 11)]) == TEMPERATURES


@pytest.mark.parametrize(("given_rows", "probability"), [(WIDE, 0.155810), (NARROW, 0.046033)])
def test_a_pair_has_the_worked_probability_and_all_pairs_sum_to_one(
    given_rows: list[list[float]], probability: float
) -> None:
    pairs_M = pair_log_probabilities(rows(given_rows), (0.5,)).exp().squeeze()
    assert pairs_M.shape == (6,)  # symmetric, and nothing on the diagonal: i < j is all of it
    assert pairs_M[0].item() / 2 == pytest.approx(probability, abs=DIGITS)
    assert pairs_M.sum().item() == pytest.approx(1.0, rel=1e-12)


def test_pairs_are_those_of_the_whole_matrix_as_the_paper_writes_it() -> None:
    cosines_NN = (
        nn.functional.normalize(rows(NARROW), dim=-1) @ nn.functional.normalize(rows(NARROW), dim=-1).T
    )
    powers_NN = (cosines_NN / 0.3).exp().fill_diagonal_(0.0)
    within_NN = powers_NN / powers_NN.sum(dim=1, keepdim=True)
    joint_NN = (within_NN + within_NN.T) / (within_NN + within_NN.T).sum()
    first, second = torch.triu_indices(4, 4, offset=1)
    found_M = pair_log_probabilities(rows(NARROW), (0.3,)).exp().squeeze() / 2
    torch.testing.assert_close(found_M, joint_NN[first, second], rtol=1e-12, atol=0)


@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 50.0), tau_scale=st.sampled_from([0.5, 1.0, 5.0]))
@settings(max_examples=25, deadline=None)
def test_turned_and_scaled_rows_pay_nothing_at_every_temperature(
    seed: int, scale: float, tau_scale: float
) -> None:
    wide_NE = random(6, 4, seed=seed)
    turned_NE = scale * wide_NE @ rotation(4, seed + 1)
    for tau in TEMPERATURES:
        assert angle_divergence(wide_NE, turned_NE, (tau * tau_scale,)).item() == pytest.approx(0.0, abs=1e-9)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_the_divergence_knows_no_rotation_and_no_length_of_a_row_but_a_shift(seed: int) -> None:
    wide_NE, narrow_ND = random(6, 4, seed=seed), random(6, 3, seed=seed + 1)
    lengths_N1 = random(6, 1, seed=seed + 2).abs() + 0.1
    plain = angle_divergence(wide_NE, narrow_ND, (0.5, 0.1)).item()
    for same_ND in (narrow_ND @ rotation(3, seed + 3), 7.0 * narrow_ND, lengths_N1 * narrow_ND):
        assert angle_divergence(wide_NE, same_ND, (0.5, 0.1)).item() == pytest.approx(plain, rel=1e-9)
    assert angle_divergence(lengths_N1 * wide_NE, narrow_ND, (0.5, 0.1)).item() == pytest.approx(
        plain, rel=1e-9
    )
    assert angle_divergence(wide_NE, narrow_ND + 1.0, (0.5, 0.1)).item() != pytest.approx(plain, rel=1e-6)


def test_the_order_of_the_rows_does_not_matter() -> None:
    order = torch.tensor([2, 0, 3, 1])
    found = angle_divergence(rows(WIDE)[order], rows(NARROW)[order], (0.1,))
    assert found.item() == pytest.approx(3.258772, abs=DIGITS)


def test_the_gradient_of_the_divergence_is_that_of_finite_differences() -> None:
    wide_NE, narrow_ND = random(5, 4), random(5, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda one_ND: angle_divergence(wide_NE, one_ND, (0.05, 0.3)), narrow_ND, rtol=1e-6, atol=1e-9
    )


def test_all_tokens_of_an_image_are_one_vector_with_one_cosine() -> None:
    student_BPD, target_BPD = rows(STUDENT_TOKENS), rows(TARGET_TOKENS)
    flat = cosine_distance(student_BPD.flatten(1), target_BPD.flatten(1))
    apart = cosine_distance(student_BPD.flatten(0, 1), target_BPD.flatten(0, 1))
    assert flat.item() == pytest.approx(0.158739, abs=DIGITS)
    assert apart.item() == pytest.approx(0.146447, abs=DIGITS)


def test_the_head_of_the_paper_has_its_parameters() -> None:
    objective = made((192,), (384,))
    assert sum(parameter.numel() for parameter in objective.parameters()) == 74_688


@pytest.mark.parametrize("term", ["global", "local"])
def test_no_gradient_of_the_angles_reaches_the_student_and_theirs_reaches_the_head(term: str) -> None:
    assert gradients(term) == (False, True)


@pytest.mark.parametrize("term", ["token", "feature"])
def test_no_gradient_of_the_regression_reaches_the_head_and_its_own_reaches_the_student(term: str) -> None:
    assert gradients(term) == (True, False)


def test_the_regression_knows_no_gradient_of_the_head_at_all() -> None:
    objective, signals = on_tokens()
    student, teacher = signals.features["weak"]["tokens"], signals.teacher["weak"].features["tokens"]
    for value in (
        cosine_distance(student[:, 0], objective.narrow(teacher)[:, 0]),
        cosine_distance(student.flatten(1), objective.narrow(teacher).flatten(1)),
    ):
        found = torch.autograd.grad(value, [*objective.parameters()], allow_unused=True)
        assert [gradient is None for gradient in found] == [True] * 4


def gradients(term: str) -> tuple[bool, bool]:
    """Whether a term alone moves the student's tokens, and whether it moves the head; never the teacher."""
    weights = {f"{name}_weight": float(name == term) for name in ("token", "feature", "global", "local")}
    objective, signals = on_tokens(**weights)
    torch.autograd.backward([objective(signals).total])
    student, teacher = signals.features["weak"]["tokens"], signals.teacher["weak"].features["tokens"]
    assert teacher.grad is None
    head = [moved(parameter) for parameter in objective.parameters()]
    return moved(student), any(head)


def moved(tensor: Tensor) -> bool:
    return tensor.grad is not None and bool(tensor.grad.abs().sum() > 0)


def test_the_whole_loss_of_tokens_is_the_weighted_sum_of_its_terms() -> None:
    weights = {"token": 0.5, "feature": 2.0, "global": 0.7, "local": 1.5, "ce": 0.3, "kd": 0.9}
    objective, signals = on_tokens(**{f"{name}_weight": weight for name, weight in weights.items()})
    losses = objective(signals)
    assert losses.terms.keys() == weights.keys()
    expected = sum(weight * losses.terms[name].item() for name, weight in weights.items())
    assert losses.total.item() == pytest.approx(expected, rel=1e-12)


def test_terms_of_tokens_are_those_of_their_formulas() -> None:
    objective, signals = on_tokens(tau_scale=5.0)
    student, teacher = signals.features["weak"]["tokens"], signals.teacher["weak"].features["tokens"].detach()
    narrowed, taus = objective.narrow(teacher), tuple(5.0 * tau for tau in TEMPERATURES)
    terms = objective(signals).terms
    images = [angle_divergence(wide, narrow, taus) for wide, narrow in zip(teacher, narrowed, strict=True)]
    expected = {
        "token": cosine_distance(student[:, 0], narrowed[:, 0]),
        "global": angle_divergence(teacher[:, 0], narrowed[:, 0], taus),
        "feature": cosine_distance(student.flatten(1), narrowed.flatten(1)),
        "local": torch.stack(images).mean(),
    }
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-12), name


def test_the_mean_of_the_tokens_may_stand_for_an_image() -> None:
    objective, signals = on_tokens(image_row="mean")
    teacher = signals.teacher["weak"].features["tokens"].detach()
    narrowed = objective.narrow(teacher)
    expected = cosine_distance(signals.features["weak"]["tokens"].mean(dim=1), narrowed.mean(dim=1))
    assert objective(signals).terms["token"].item() == pytest.approx(expected.item(), rel=1e-12)


def test_embeddings_have_the_terms_of_images_alone() -> None:
    objective = made((2,), (3,))
    signals = signals_of("embedding", rows(NARROW), rows(WIDE))
    losses = objective(signals)
    narrowed = objective.narrow(rows(WIDE))
    assert losses.terms.keys() == {"token", "global", "ce", "kd"}
    assert losses.terms["global"].item() == angle_divergence(rows(WIDE), narrowed, TEMPERATURES).item()
    assert losses.total.item() == pytest.approx((losses.terms["token"] + losses.terms["global"]).item())


def test_the_gradient_of_student_and_head_is_that_of_finite_differences() -> None:
    objective = made((2, 2), (2, 3), level="tokens", tau_scale=20.0, ce_weight=0.5, kd_weight=0.5)
    teacher = random(3, 2, 3, seed=2)
    assert torch.autograd.gradcheck(
        lambda one: objective(signals_of("tokens", one, teacher)).total,
        random(3, 2, 2).requires_grad_(),
        rtol=1e-6,
        atol=1e-9,
    )
    norm, linear = objective.narrow.children()
    assert isinstance(linear, nn.Linear)

    def of_head(one: Tensor) -> Tensor:
        # What the regression says of the head is nothing by its gradient, and something by its value.
        narrowed = nn.functional.linear(norm(teacher), one, linear.bias)
        return angle_divergence(teacher, narrowed, TEMPERATURES)

    assert torch.autograd.gradcheck(of_head, linear.weight, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("level", ["embedding", "tokens"])
@pytest.mark.parametrize("size", [1, 2])
def test_a_batch_of_one_or_two_has_finite_losses_and_gradients(level: str, size: int) -> None:
    shape = (1, 2) if level == "tokens" else (2,)
    objective = made(shape, (*shape[:-1], 3), level=level, ce_weight=1.0, kd_weight=1.0)
    student = random(size, *shape).requires_grad_()
    losses = objective(
        signals_of("embedding" if level == "embedding" else level, student, random(size, *shape[:-1], 3))
    )
    torch.autograd.backward([losses.total])
    assert losses.total.isfinite()
    assert losses.terms["global"].item() == pytest.approx(
        0.0, abs=1e-12
    )  # one pair has no other to differ from
    for tensor in (student, *objective.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


def test_features_of_zeros_and_equal_rows_have_finite_gradients_in_fp32() -> None:
    objective = made((2,), (3,)).float()
    student = torch.zeros(4, 2, requires_grad=True)
    losses = objective(signals_of("embedding", student, torch.ones(4, 3)))
    torch.autograd.backward([losses.total])
    assert losses.total.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.parameters())


def test_the_smallest_temperature_is_safe_in_fp32_and_under_autocast() -> None:
    wide_NE, narrow_ND = random(64, 16).float(), random(64, 8, seed=1).float().requires_grad_()
    exact = angle_divergence(wide_NE.double(), narrow_ND.double(), (0.01,)).item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = angle_divergence(wide_NE.bfloat16(), narrow_ND.bfloat16(), TEMPERATURES)
    assert half.isfinite()
    assert half.dtype is torch.float32
    assert angle_divergence(wide_NE, narrow_ND, (0.01,)).item() == pytest.approx(exact, rel=1e-4)


def test_unlabelled_images_have_features_and_no_cross_entropy() -> None:
    objective, signals = on_tokens(ce_weight=1.0)
    plain = objective(signals)
    none = replace(signals, labels_B=torch.full((5,), -1), labelling=Labelling(0))
    losses = objective(none)
    assert losses.terms["ce"].item() == 0.0
    for name in ("token", "feature", "global", "local", "kd"):
        assert losses.terms[name].item() == plain.terms[name].item()


def test_tokens_that_do_not_correspond_are_refused_with_their_numbers() -> None:
    with pytest.raises(TrialFailed, match=r"student has 5 tokens of 2 numbers, the teacher 17 tokens of 3"):
        made((5, 2), (17, 3), level="tokens")


def test_features_of_no_known_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the shape of the student's feature 'embedding'"):
        TintemObjective(TintemConfig(), Setting(8, 3, epochs=5))


def test_the_defaults_leave_labels_and_soft_targets_out() -> None:
    losses: Losses = made((2,), (3,))(signals_of("embedding", rows(NARROW), rows(WIDE)))
    expected = losses.terms["token"] + losses.terms["global"]
    assert losses.total.item() == pytest.approx(expected.item(), rel=1e-12)
