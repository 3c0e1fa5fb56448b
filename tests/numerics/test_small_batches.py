"""What objectives say of a single sample, of two classes, and of a batch that a mask drops as a whole."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Final

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.numerics import random_signals
from tests.numerics.reference import (
    DIGITS,
    THREE_LABELS,
    THREE_STUDENT,
    THREE_TEACHER,
    all_views,
    gradient,
    logits,
    signals_of,
    two_views,
)
from trainables.config import (
    OBJECTIVE_CONFIGS,
    CrldConfig,
    DistConfig,
    DkdConfig,
    KdConfig,
    MlldConfig,
    ObjectiveBase,
)
from trainables.config.objectives import ClkdConfig, CtkdConfig, ZipfConfig
from trainables.signals import Losses, Signals

# B = samples in the batch, C = classes
# In these a sample is told from, ranked among, normalised or mixed with the others of its batch.
COUPLED: Final = {
    "dist",
    "clkd",
    "ckd",
    "mlld",
    "sp",
    "rkd",
    "pkt",
    "crd",
    "simreg",
    "srd",
    "fitnet",
    "reviewkd",
    "tat",
    "mlkd",
    "sskd",
    "hsakd",
    "tintem",
    "mcl",
    "mfef",
    "mixskd",
}
ALONE: Final = [name for name in OBJECTIVE_CONFIGS if name not in COUPLED]
TWO_CLASSES: Final = (
    [[1.0, -0.5], [0.2, 0.8], [-0.3, 0.4]],
    [[2.0, 0.5], [1.5, -0.5], [-2.0, 1.0]],
    [0, 0, 1],
)


def losses_of(config: ObjectiveBase, signals: Signals) -> Losses:
    return random_signals.losses_of(config, signals, epochs=20)


def complete(signals: Signals) -> Signals:
    """With dense logits, for those who want them."""
    dense = {bank: value_BC.detach()[:, :, None, None] for bank, value_BC in signals.student.items()}
    return replace(signals, dense=dense)


def sample(signals: Signals, row: int) -> Signals:
    """One sample of a batch."""
    part = slice(row, row + 1)
    students = {bank: value_BC[part] for bank, value_BC in signals.student.items()}
    teachers = {bank: signal.logits_BC[part] for bank, signal in signals.teacher.items()}
    images = {bank: shown_BCHW[part] for bank, shown_BCHW in signals.images.items()}
    return complete(signals_of(students, teachers, [int(signals.labels_B[row])], images=images))


def two_classes(*, grad: bool = False) -> Signals:
    student, teacher, labels = TWO_CLASSES
    student_BC, teacher_BC = logits(student, grad=grad), logits(teacher)
    both = {"weak": student_BC, "strong": student_BC.flip(0)}
    return complete(signals_of(both, dict.fromkeys(both, teacher_BC), labels))


def third(student: list[list[float]], teacher: list[list[float]]) -> Signals:
    """The first sample of F2."""
    return complete(signals_of(logits(student[:1], grad=True), logits(teacher[:1]), THREE_LABELS[:1]))


@pytest.mark.parametrize("name", ALONE)
def test_the_loss_of_a_batch_is_the_mean_of_those_of_its_samples_alone(name: str) -> None:
    config = OBJECTIVE_CONFIGS[name]()
    if name == "crld":
        config = CrldConfig(weak_threshold=0.8, strong_threshold=0.4)  # keeps the first sample alone
    signals = complete(all_views())
    alone = [losses_of(config, sample(signals, row)).total.item() for row in range(len(THREE_LABELS))]
    assert losses_of(config, signals).total.item() == pytest.approx(sum(alone) / len(alone), rel=1e-6)


def test_one_sample_has_the_worked_divergence_of_its_row() -> None:
    terms = losses_of(KdConfig(), sample(two_views(), 0)).terms
    assert terms["kd"].item() == pytest.approx(0.570361, abs=DIGITS)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_one_sample_has_no_correlation_over_the_batch(temperature: float) -> None:
    signals = third(THREE_STUDENT, THREE_TEACHER)
    losses = losses_of(DistConfig(temperature=temperature, beta=0.0, ce_weight=0.0), signals)
    assert losses.terms["intra"].item() == temperature**2
    assert torch.equal(gradient(losses.total, signals), torch.zeros(1, 4).double())


def test_one_sample_has_no_covariance_and_columns_that_are_signs() -> None:
    """Of length 1, columns of [1, 0.5, -0.5, 0] are 1, 1, -1, 0, and those of [3, 1, 0, -1] 1, 1, 0, -1."""
    signals = third(THREE_STUDENT, THREE_TEACHER)
    losses = losses_of(ClkdConfig(), signals)
    assert losses.terms["class"].item() == pytest.approx((0 + 0 + 1 + 1) / 4, rel=1e-12)
    assert losses.terms["covariance"].item() == 0.0
    assert torch.isfinite(gradient(losses.total, signals)).all()


def test_one_sample_is_the_less_confident_half_and_all_of_mlld_is_finite() -> None:
    for mask in ("released", "per_sample"):
        losses = losses_of(MlldConfig(mask=mask, ce_weight=0.0), sample(two_views(), 1))
        assert losses.gauges["kept_samples"].item() == 1.0
        assert 0.0 < losses.total.item() < 10.0


def test_of_two_classes_decoupled_distillation_is_that_of_the_target_alone() -> None:
    """TCKD is then the whole divergence, and NCKD 0: whatever beta is, it is KD."""
    signals, plain = two_classes(grad=True), KdConfig(ce_weight=1.0, kd_weight=1.0)
    expected = losses_of(plain, signals)
    losses = losses_of(DkdConfig(warmup_epochs=1), signals)
    assert losses.terms["nckd"].item() == 0.0
    torch.testing.assert_close(losses.total, expected.total, rtol=1e-12, atol=0)
    found_BC, wanted_BC = gradient(losses.total, signals), gradient(expected.total, signals)
    torch.testing.assert_close(found_BC, wanted_BC, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    ("dkd", "kd"),
    [
        (CrldConfig(base="dkd", weak_threshold=0.8), CrldConfig(weak_threshold=0.8)),
        (CtkdConfig(base="dkd"), CtkdConfig(ce_weight=1.0, kd_weight=1.0)),
    ],
    ids=["crld", "ctkd"],
)
def test_of_two_classes_the_bases_dkd_and_kd_are_one(dkd: ObjectiveBase, kd: ObjectiveBase) -> None:
    one, other = losses_of(dkd, two_classes()).total, losses_of(kd, two_classes()).total
    assert one.item() == pytest.approx(other.item(), rel=1e-12)


def test_of_two_classes_the_probabilities_of_a_sample_correlate_fully_one_way_or_the_other() -> None:
    """The samples lean the same way, the other way and the same way, so a third of them is 2 T² away."""
    signals = two_classes(grad=True)
    losses = losses_of(DistConfig(temperature=2.0, gamma=0.0, ce_weight=0.0), signals)
    assert losses.terms["inter"].item() == pytest.approx(2 * 2.0**2 / 3, rel=1e-6)
    assert gradient(losses.total, signals).abs().max() < 1e-5


def test_of_two_classes_standardised_logits_are_signs() -> None:
    """+-1 / sqrt 2 with the unbiased deviation: nothing but the order is left, and it is met or not."""
    signals = two_classes(grad=True)
    losses = losses_of(KdConfig(standardise=True, temperature=1.0, ce_weight=0.0, kd_weight=1.0), signals)
    gap = math.sqrt(2)  # of the two standardised logits
    p = 1 / (1 + math.exp(-gap))
    missed = p * math.log(p / (1 - p)) + (1 - p) * math.log((1 - p) / p)
    assert losses.total.item() == pytest.approx(missed / 3, rel=1e-6)
    assert gradient(losses.total, signals).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["kd", "dkd", "dist", "mlld"])
@pytest.mark.parametrize("gate", ["released", "own_view"])
def test_a_batch_that_is_dropped_as_a_whole_leaves_the_gradient_of_the_labels(name: str, gate: str) -> None:
    signals = two_views(grad=True)
    options: dict[str, Any] = {"base": name, "gate": gate, "weak_threshold": 0.99, "strong_threshold": 0.99}
    losses = losses_of(CrldConfig(**options), signals)
    assert (losses.gauges["kept_weak"].item(), losses.gauges["kept_strong"].item()) == (0.0, 0.0)
    assert (losses.terms["within"].item(), losses.terms["cross"].item()) == (0.0, 0.0)
    for bank, student_BC in signals.student.items():
        expected_BC = (student_BC.detach().softmax(dim=-1) - F.one_hot(signals.labels_B, 4)) / 2
        found_BC = gradient(losses.total, signals, bank)
        torch.testing.assert_close(found_BC, expected_BC, rtol=1e-12, atol=1e-15)


def test_no_sample_that_is_right_leaves_the_gradient_of_the_labels() -> None:
    """Zipf's mask: both samples of F1 have another label than their answer."""
    wrong = [3, 1]
    signals = complete(two_views(grad=True))
    signals = replace(signals, labels_B=torch.tensor(wrong))
    losses = losses_of(ZipfConfig(correct_only=True), signals)
    assert losses.gauges["kept"].item() == 0.0
    assert losses.terms["zipf"].item() == 0.0
    student_BC = signals.student["weak"].detach()
    expected_BC: Tensor = (student_BC.softmax(dim=-1) - F.one_hot(torch.tensor(wrong), 4)) / 2
    torch.testing.assert_close(gradient(losses.total, signals), expected_BC, rtol=1e-12, atol=1e-15)
