"""What every objective must hold, with its options: what they select is other code than the defaults'."""

from __future__ import annotations

import math
from typing import Any, Final

import pytest
import torch
from torch import Tensor

from tests.numerics import random_signals
from tests.numerics.random_signals import BANKS, random_logits, with_grad
from trainables.config import CrldConfig, DistConfig, DkdConfig, KdConfig, MlldConfig, ObjectiveBase
from trainables.config.objectives import (
    AektConfig,
    AkdConfig,
    AtConfig,
    CkdConfig,
    ClkdConfig,
    CrdConfig,
    CtkdConfig,
    DeitConfig,
    DmlConfig,
    FitnetConfig,
    MclConfig,
    MfefConfig,
    MixskdConfig,
    PixelConfig,
    PskdConfig,
    ReviewkdConfig,
    RkdConfig,
    SimregConfig,
    SpConfig,
    SrdConfig,
    TatConfig,
    ThkdConfig,
    TintemConfig,
    ZipfConfig,
)
from trainables.signals import Losses, Signals

# B = samples in the batch, C = classes
OPEN: Final[dict[str, Any]] = {"weak_threshold": 0.3, "strong_threshold": 0.1}
VARIANTS: Final[dict[str, ObjectiveBase]] = {
    "kd standardised": KdConfig(standardise=True, temperature=2.0, kd_weight=9.0),
    "dkd standardised": DkdConfig(standardise=True, temperature=2.0, alpha=9.0, beta=72.0),
    "dist at 1": DistConfig(temperature=1.0),
    "ctkd dkd": CtkdConfig(base="dkd"),
    "aekt at most 1": AektConfig(max_ratio=1.0),
    "clkd by sample": ClkdConfig(covariance="sample"),
    "ckd at 0.1": CkdConfig(temperature=0.1),
    "akd mixture": AkdConfig(attack_target="mixture", teacher_share=1.0),
    "mlld per sample": MlldConfig(mask="per_sample"),
    "mlld standardised": MlldConfig(standardise=True, temperatures="three"),
    "mlld one": MlldConfig(temperatures="one", temperature=1.0),
    "crld own view": CrldConfig(gate="own_view", **OPEN),
    "crld standardised": CrldConfig(standardise=True, **OPEN),
    **{f"crld {base}": CrldConfig(base=base, **OPEN) for base in ("dkd", "dist", "mlld")},
    "zipf correct only": ZipfConfig(correct_only=True, upsample=1),
    "sp on maps, with kd": SpConfig(level="map", kd_weight=1.0),
    "rkd without angles": RkdConfig(angle_weight=0.0),
    "at by length": AtConfig(form="norm", stages="2,3", at_weight=10.0),
    "pskd half": PskdConfig(half=True, growth="cosine"),
    "crd as released": CrdConfig(draw="sample", when_short="repeat", negatives=80, kd_weight=1.0),
    "crd relaxed": CrdConfig(positive="relaxed", tau=0.05, momentum=0.0),
    "simreg with labels": SimregConfig(depth=2, ce_weight=1.0, regression_weight=5.0),
    "simreg linear, with kd": SimregConfig(depth=1, kd_weight=1.0),
    "srd on embeddings": SrdConfig(level="embedding", activation="none", kd_weight=1.0),
    "thkd with kde": ThkdConfig(embedding="kde", bridge="always"),
    "thkd of the paper, with cosine": ThkdConfig(form="paper", embedding="cosine"),
    "tintem of tokens": TintemConfig(level="tokens", ce_weight=1.0, kd_weight=1.0, tau_scale=5.0),
    "tintem of their mean": TintemConfig(level="tokens", image_row="mean", tau_scale=0.5),
    "pixel with maps": PixelConfig(feature_weight=1.0),
    "deit soft": DeitConfig(form="soft", ce_weight=0.9, distillation_weight=0.1),
    "fitnet before the activation": FitnetConfig(hint="stage3", teacher_maps="pre", relu=False),
    "fitnet of embeddings, in two steps": FitnetConfig(hint="embedding", hint_epochs=6, kd_weight=1.0),
    "reviewkd of two levels": ReviewkdConfig(levels=2, teacher_maps="post", kd_weight=1.0),
    "tat by teacher": TatConfig(orientation="teacher_row", theta="conv", kd_weight=0.5),
    "mcl with banks": MclConfig(form="bank", negatives=20, kd_weight=1.0),
    "mcl in layers": MclConfig(layers=True, tau=0.05),
    "mcl in layers, with banks": MclConfig(layers=True, form="bank", dim=8, kd_hearers="all"),
    "mcl of three": MclConfig(peers=3, dim=8, kd_weight=1.0),
    "dml of three, summed": DmlConfig(peers=3, over_peers="sum", temperature=2.0),
    "dml of three by their mean": DmlConfig(peers=3, target="mean"),
    "mfef in one group": MfefConfig(groups=1),
    "mfef of three": MfefConfig(peers=3),
    "mixskd with discriminators": MixskdConfig(disc_weight=1.0),
    "mixskd as its script": MixskdConfig(mode="script", disc_weight=1.0),
}
TAUGHT: Final = {name: config for name, config in VARIANTS.items() if config.teacher_banks}
# These gain by other than equal logits.
NEVER_ZERO: Final = {
    *("ckd at 0.1", "akd mixture", "crd as released", "crd relaxed", "simreg with labels"),
    *("simreg linear, with kd", "srd on embeddings", "thkd with kde"),
    *("fitnet before the activation", "fitnet of embeddings, in two steps"),
    *("reviewkd of two levels", "tat by teacher"),
    *("ckd at 0.1", "akd mixture", "tintem of tokens", "tintem of their mean", "pixel with maps"),
}
# 1e-8 in the denominator of a correlation, and its T² of 16.
LEFT_OVER: Final = {"dist at 1": 1e-4, "crld dist": 1e-3, "thkd of the paper, with cosine": 1e-6}


def doubled(logits: dict[str, Tensor]) -> dict[str, Tensor]:
    return {bank: value_BC.double() for bank, value_BC in logits.items()}


def signals(students: dict[str, Tensor], teachers: dict[str, Tensor], labels: list[int]) -> Signals:
    return random_signals.signals_of(students, teachers, torch.tensor(labels))


def losses_of(config: ObjectiveBase, given: Signals) -> Losses:
    return random_signals.losses_of(config, given)


def gradients_of(config: ObjectiveBase, students: dict[str, Tensor], losses: Losses) -> tuple[Tensor, ...]:
    return torch.autograd.grad(losses.total, [students[bank] for bank in config.banks])


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_autocast_changes_neither_loss_nor_gradient_at_logits_of_sixty(config: ObjectiveBase) -> None:
    teachers, labels = random_logits(2, 16, 10, scale=30.0), [row % 10 for row in range(16)]
    totals, gradients = [], []
    for enabled in (False, True):
        students = with_grad(random_logits(1, 16, 10, scale=30.0))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            losses = losses_of(config, signals(students, teachers, labels))
        assert losses.total.dtype is torch.float32
        totals.append(losses.total.item())
        gradients.append(gradients_of(config, students, losses))
    assert all(torch.isfinite(gradient_BC).all() for gradient_BC in gradients[0])
    assert totals[0] == totals[1]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_half_precision_student_logits_are_promoted_before_the_softmax(
    config: ObjectiveBase, dtype: torch.dtype
) -> None:
    halves = {bank: value_BC.to(dtype) for bank, value_BC in random_logits(1, 16, 10, scale=30.0).items()}
    teachers, labels = random_logits(2, 16, 10, scale=30.0), [row % 10 for row in range(16)]
    singles = {bank: value_BC.float() for bank, value_BC in halves.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = losses_of(config, signals(halves, teachers, labels))
    assert losses.total.item() == losses_of(config, signals(singles, teachers, labels)).total.item()


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_fp32_agrees_with_float64(config: ObjectiveBase) -> None:
    students, teachers = random_logits(1, 16, 10, scale=5.0), random_logits(2, 16, 10, scale=5.0)
    labels = [row % 10 for row in range(16)]
    single = losses_of(config, signals(students, teachers, labels))
    exact = losses_of(config, signals(doubled(students), doubled(teachers), labels))
    assert exact.total.dtype is torch.float64
    for term, value in exact.terms.items():
        assert single.terms[term].item() == pytest.approx(value.item(), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("config", TAUGHT.values(), ids=TAUGHT)
def test_teacher_logits_rounded_to_fp16_change_the_loss_by_less_than_a_hundredth(
    config: ObjectiveBase,
) -> None:
    students, teachers = random_logits(1, 64, 10), random_logits(2, 64, 10)
    largest = {bank: value_BC.amax(dim=-1, keepdim=True) for bank, value_BC in teachers.items()}
    rounded = {
        bank: (value_BC - largest[bank]).half().float() + largest[bank] for bank, value_BC in teachers.items()
    }
    labels = [row % 10 for row in range(64)]
    exact = losses_of(config, signals(students, teachers, labels))
    kept = losses_of(config, signals(students, rounded, labels))
    torch.testing.assert_close(kept.total, exact.total, rtol=1e-2, atol=0)
    assert kept.gauges.keys() == exact.gauges.keys()
    for gauge, value in exact.gauges.items():
        torch.testing.assert_close(kept.gauges[gauge], value, rtol=1e-2, atol=0)


@pytest.mark.parametrize(("rows", "classes"), [(1, 2), (1, 10), (3, 2)])
@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_one_sample_and_two_classes_give_finite_losses_and_gradients(
    config: ObjectiveBase, rows: int, classes: int
) -> None:
    students = with_grad(random_logits(1, rows, classes))
    labels = [row % classes for row in range(rows)]
    losses = losses_of(config, signals(students, random_logits(2, rows, classes), labels))
    assert math.isfinite(losses.total.item())
    assert all(math.isfinite(value.item()) for value in [*losses.terms.values(), *losses.gauges.values()])
    for gradient_BC in gradients_of(config, students, losses):
        assert torch.isfinite(gradient_BC).all()


@pytest.mark.parametrize("value", [0.0, 60.0, -60.0])
@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_all_equal_logits_give_finite_losses_and_gradients(config: ObjectiveBase, value: float) -> None:
    flat = {bank: torch.full((3, 5), value) for bank in BANKS}
    students = with_grad(flat)
    losses = losses_of(config, signals(students, flat, [0, 1, 2]))
    assert math.isfinite(losses.total.item())
    for gradient_BC in gradients_of(config, students, losses):
        assert torch.isfinite(gradient_BC).all()


@pytest.mark.parametrize("name", [name for name in TAUGHT if name not in NEVER_ZERO])
def test_a_student_equal_to_its_teacher_pays_nothing_beside_the_labels(name: str) -> None:
    same = dict.fromkeys(BANKS, random_logits(1, 6, 5)["weak"])
    losses = losses_of(TAUGHT[name], signals(same, same, [0, 1, 2, 3, 4, 0]))
    distilled = {term: value.item() for term, value in losses.terms.items() if not term.startswith("ce")}
    assert distilled == pytest.approx(dict.fromkeys(distilled, 0.0), abs=LEFT_OVER.get(name, 0.0))


@pytest.mark.parametrize("config", TAUGHT.values(), ids=TAUGHT)
def test_no_gradient_reaches_the_teacher(config: ObjectiveBase) -> None:
    students, teachers = with_grad(random_logits(1, 6, 5)), with_grad(random_logits(2, 6, 5))
    torch.autograd.backward([losses_of(config, signals(students, teachers, [0, 1, 2, 3, 4, 0])).total])
    assert all(value_BC.grad is None for value_BC in teachers.values())
    for bank in config.banks:
        gradient_BC = students[bank].grad
        assert gradient_BC is not None
        assert gradient_BC.abs().sum() > 0
