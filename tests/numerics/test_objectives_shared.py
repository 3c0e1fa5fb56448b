"""What every objective must hold: no gradient to the teacher, precision, degenerate batches, the table."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from typing import ClassVar, Final, get_args

import pytest
import torch
from torch import Tensor

from tests.numerics.feature_stand_ins import setting_of
from tests.numerics.random_signals import (
    BANKS,
    losses_of,
    random_labels,
    random_logits,
    signals_of,
    with_grad,
)
from trainables.config import OBJECTIVE_CONFIGS, CrldConfig, DkdConfig, KdConfig, ObjectiveBase
from trainables.errors import ConfigError
from trainables.objectives import OBJECTIVES, CrldObjective, build_objective
from trainables.signals import Losses, Setting

# B = samples in the batch, C = classes

NAMES: Final = tuple(OBJECTIVE_CONFIGS)
DISTILLING: Final = tuple(name for name, config in OBJECTIVE_CONFIGS.items() if config.teacher_banks)
TERMS: Final = {
    "ce": {"ce"},
    "ls": {"smoothed"},
    "kd": {"ce", "kd"},
    "dkd": {"ce", "tckd", "nckd"},
    "dist": {"ce", "inter", "intra"},
    "zipf": {"ce", "zipf"},
    "pskd": {"ce", "own"},
    "ctkd": {"ce", "kd"},
    "aekt": {"ce", "tckd", "nckd"},
    "clkd": {"ce", "sample", "class", "covariance"},
    "ckd": {"ce", "contrast"},
    "akd": {"ce", "soft"},
    "cbd": {"ce", "embedding"},
    "sp": {"ce", "kd", "similarity"},
    "rkd": {"ce", "kd", "distance", "angle"},
    "pkt": {"ce", "kd", "neighbours"},
    "at": {"ce", "kd", "attention"},
    "fitnet": {"ce", "kd", "hint"},
    "reviewkd": {"ce", "kd", "review"},
    "tat": {"ce", "kd", "tat"},
    "mlld": {"ce_weak", "ce_strong", "kd_weak", "kd_strong", "class", "batch"},
    "crld": {"ce_weak", "ce_strong", "within", "cross"},
    "crd": {"ce", "kd", "crd_student", "crd_teacher"},
    "simreg": {"ce", "kd", "simreg"},
    "srd": {"ce", "kd", "srd_logits", "srd_embedding"},
    "thkd": {"ce", "ce_head", "kd", "kd_head"},
    "mlkd": {"ce", "kd", "individual", "relation", "category"},
    "sskd": {"ce", "kd", "tf", "ss"},
    "hsakd": {"ce", "kd", "branches", "branch1", "branch2", "branch3"},
    "tintem": {"token", "global", "ce", "kd"},
    "pixel": {"ce", "kd", "image"},
    "deit": {"ce", "distillation", "kd"},
    "dml": {"ce", "kl", "peer1_ce", "peer1_kl"},
    "mcl": {
        *("ce", "kd", "vcl", "soft_vcl", "icl", "soft_icl"),
        *("peer1_ce", "peer1_kd", "peer1_vcl", "peer1_soft_vcl"),
    },
    "mfef": {"ce", "kd", "peer1_ce", "peer1_kd", "fusion_ce", "fusion_kd"},
    "mixskd": {"ce", "ce_mixed", "kl", "features", "discriminators"},
}
GAUGES: Final[dict[str, set[str]]] = {
    "dkd": {"warmup"},
    "pskd": {"trust", "answered"},
    "ctkd": {"temperature", "reversal"},
    "aekt": {"ratio"},
    "mlld": {"kept_samples", "kept_classes"},
    "crld": {"kept_weak", "kept_strong"},
    "crd": {"negatives"},
    "sskd": {"kept_tf", "kept_ss"},
    "deit": {"agreement"},
    "mcl": {"paired"},
    "mixskd": {"share"},
}
# The names of what a course keeps of them, of a module that one: checkpoints of earlier versions hold these.
STATEFUL: Final[dict[str, set[str]]] = {
    "ctkd": {"theta"},
    "pskd": {"answers_NC", "answered_N"},
    "crd": {"student_layer", "teacher_layer", "student_bank_ND", "teacher_bank_ND", "log_constants_2"},
    "simreg": {"head"},
    "srd": {"head"},
    "thkd": set(),  # as wide as the teacher: nothing stands between them
    "fitnet": {"regressor"},
    "reviewkd": {"review"},
    "tat": {"gamma", "phi"},
    "mlkd": {"individual_head", "relation_head", "student_projection", "teacher_projection"},
    "sskd": {"head"},
    "hsakd": {"branches"},
    "tintem": {"narrow"},
    "pixel": {"draw"},
    "mcl": {"levels"},
    "mfef": {"fusion"},
    "mixskd": {"branches", "self_teacher"},
}
# What is not 0 where student and teacher are equal: DIST's denominator has 1e-8 of its own.
LEFT_OVER: Final = {"dist": 1e-4, "cbd": 1e-6, "thkd": 1e-6}
# Terms of three samples whose five logits are all equal, where that is neither the entropy nor 0.
FLAT: Final = {
    ("ls", "smoothed"): math.log(5),
    ("pskd", "own"): math.log(5),
    ("dist", "inter"): 16.0,
    ("dist", "intra"): 16.0,
    ("ckd", "contrast"): math.log(3),
    ("akd", "soft"): math.log(5),
    ("deit", "distillation"): math.log(5),
    # Two of the three have the same label: each of them is told from two that are equal to it. The third one
    # counts as 0 in the mean.
    ("mcl", "vcl"): 2 * math.log(2) / 3,
    ("mcl", "peer1_vcl"): 2 * math.log(2) / 3,
    ("mcl", "icl"): 4 * math.log(2) / 3,
    # All positions vote for class 0. One of the labels is another: the rest share 0.4 and thrice 0.2.
    ("zipf", "zipf"): (0.4 * math.log(1.6) + 0.6 * math.log(0.8)) / 3,
}
# Terms that hang on the first weights of a module beside the student, so that no number can be told.
UNTOLD: Final = {
    ("crd", "crd_student"),
    ("crd", "crd_teacher"),
    ("simreg", "simreg"),
    ("srd", "srd_logits"),
    ("srd", "srd_embedding"),
    ("fitnet", "hint"),
    ("reviewkd", "review"),
    ("tat", "tat"),
    ("tintem", "token"),
    ("pixel", "image"),
    ("mfef", "kd"),
    ("mfef", "peer1_kd"),
    ("mfef", "fusion_ce"),
    ("mfef", "fusion_kd"),
    ("mixskd", "ce"),
    ("mixskd", "ce_mixed"),
    ("mixskd", "kl"),
    ("mlkd", "individual"),
    ("mlkd", "category"),
    *(("hsakd", term) for term in TERMS["hsakd"] if term.startswith("branch")),
}
# These gain by other than equal logits.
NEVER_ZERO: Final = {"ckd", "akd", "sskd", "pixel", "tintem", "deit", *(name for name, _ in UNTOLD)}


def assert_finite_with_gradient(name: str, students: dict[str, Tensor], losses: Losses) -> None:
    assert math.isfinite(losses.total.item())
    assert all(math.isfinite(term.item()) for term in losses.terms.values())
    inputs = [students[bank] for bank in OBJECTIVE_CONFIGS[name].banks]
    for gradient_BC in torch.autograd.grad(losses.total, inputs):
        assert torch.isfinite(gradient_BC).all()


def setting() -> Setting:
    return setting_of(signals_of(random_logits(1, 4, 5), random_logits(2, 4, 5), random_labels(3, 4, 5)))


def test_the_table_names_the_objectives_that_have_a_configuration() -> None:
    assert set(OBJECTIVES) == set(OBJECTIVE_CONFIGS)


@pytest.mark.parametrize("name", STATEFUL)
def test_an_objective_with_a_state_is_a_module_made_for_a_setting(name: str) -> None:
    config = OBJECTIVE_CONFIGS[name]()
    objective = build_objective(config, setting())
    assert isinstance(objective, torch.nn.Module)
    assert type(objective) is OBJECTIVES[name]
    assert {key.split(".")[0] for key in objective.state_dict()} == STATEFUL[name]
    with pytest.raises(ValueError, match=f"{name} has a state of its own"):
        build_objective(config)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_each_name_builds_the_objective_that_takes_its_configuration(name: str) -> None:
    config = OBJECTIVE_CONFIGS[name]()
    objective = build_objective(config, setting())
    assert isinstance(objective, torch.nn.Module)
    assert type(objective) is OBJECTIVES[name]
    (base,) = type(objective).__orig_bases__  # type: ignore[attr-defined]
    assert get_args(base) == (OBJECTIVE_CONFIGS[name],)
    with pytest.raises(FrozenInstanceError):
        objective.config = config


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - set(STATEFUL)))
def test_an_objective_without_a_state_needs_no_setting_and_keeps_nothing(name: str) -> None:
    assert not build_objective(OBJECTIVE_CONFIGS[name]()).state_dict()


class UnlistedConfig(ObjectiveBase):
    """A configuration that the table does not know."""

    banks: ClassVar[tuple[str, ...]] = ("weak",)
    teacher_banks: ClassVar[tuple[str, ...]] = ()
    paper: ClassVar[str] = "none"
    name: str = "unlisted"


class NamelessConfig(ObjectiveBase):
    """A configuration without a name."""


@pytest.mark.parametrize(
    ("config", "name"),
    [(UnlistedConfig(), "'unlisted'"), (NamelessConfig(), "None")],
    ids=["unlisted", "nameless"],
)
def test_an_unknown_objective_is_refused_with_the_known_names(config: ObjectiveBase, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"unknown objective {name} .*known: aekt, .*kd, .*zipf"):
        build_objective(config)


@pytest.mark.parametrize("name", NAMES)
def test_terms_and_gauges_carry_their_names_and_no_gradient(name: str) -> None:
    students = with_grad(random_logits(1, 8, 5))
    losses = losses_of(name, signals_of(students, random_logits(2, 8, 5), random_labels(3, 8, 5)))
    assert set(losses.terms) == TERMS[name]
    assert set(losses.gauges) == GAUGES.get(name, set())
    assert losses.total.requires_grad
    for value in [losses.total, *losses.terms.values(), *losses.gauges.values()]:
        assert value.shape == ()
        assert value.dtype is torch.float32
    assert not any(value.requires_grad for value in [*losses.terms.values(), *losses.gauges.values()])


@pytest.mark.parametrize("name", NAMES)
def test_an_objective_reads_only_the_banks_that_it_names(name: str) -> None:
    config = OBJECTIVE_CONFIGS[name]
    students, teachers = random_logits(1, 4, 5), random_logits(2, 4, 5)
    named = signals_of(
        {bank: students[bank] for bank in config.banks},
        {bank: teachers[bank] for bank in config.teacher_banks},
        random_labels(3, 4, 5),
    )
    every = signals_of(students, teachers, random_labels(3, 4, 5))
    assert losses_of(name, named).total.item() == losses_of(name, every).total.item()


@pytest.mark.parametrize("name", NAMES)
def test_no_gradient_reaches_the_teacher(name: str) -> None:
    students, teachers = with_grad(random_logits(1, 6, 5)), with_grad(random_logits(2, 6, 5, scale=4.0))
    signals = signals_of(students, teachers, random_labels(3, 6, 5))
    assert signals.teacher["weak"].features["embedding"].requires_grad
    torch.autograd.backward([losses_of(name, signals).total])
    assert all(teachers[bank].grad is None for bank in BANKS)
    for bank in OBJECTIVE_CONFIGS[name].banks:
        gradient_BC = students[bank].grad
        assert gradient_BC is not None
        assert gradient_BC.abs().sum() > 0


@pytest.mark.parametrize("name", [name for name in DISTILLING if name not in NEVER_ZERO])
def test_a_student_equal_to_its_teacher_pays_nothing_beside_the_labels(name: str) -> None:
    same = dict.fromkeys(BANKS, random_logits(1, 6, 5)["weak"])
    students = with_grad(same)
    losses = losses_of(name, signals_of(students, same, random_labels(3, 6, 5)))
    distilled = {term: value.item() for term, value in losses.terms.items() if not term.startswith("ce")}
    assert distilled == pytest.approx(dict.fromkeys(distilled, 0.0), abs=LEFT_OVER.get(name, 0.0))


@pytest.mark.parametrize(("rows", "classes"), [(1, 2), (1, 10), (3, 2), (5, 1000)])
@pytest.mark.parametrize("name", NAMES)
def test_degenerate_batches_give_finite_losses_and_gradients(name: str, rows: int, classes: int) -> None:
    students = with_grad(random_logits(1, rows, classes))
    signals = signals_of(students, random_logits(2, rows, classes), random_labels(3, rows, classes))
    assert_finite_with_gradient(name, students, losses_of(name, signals))


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_one_class_gives_finite_losses_and_gradients(name: str) -> None:
    students = with_grad(random_logits(1, 3, 5))
    signals = signals_of(students, random_logits(2, 3, 5), torch.zeros(3, dtype=torch.long))
    assert_finite_with_gradient(name, students, losses_of(name, signals))


@pytest.mark.parametrize("value", [0.0, 60.0, -60.0])
@pytest.mark.parametrize("name", NAMES)
def test_all_equal_logits_give_the_entropy_of_a_guess(name: str, value: float) -> None:
    flat = {bank: torch.full((3, 5), value) for bank in BANKS}
    students = with_grad(flat)
    losses = losses_of(name, signals_of(students, flat, random_labels(3, 3, 5)))
    assert_finite_with_gradient(name, students, losses)
    for term, loss in losses.terms.items():
        if (name, term) in UNTOLD:
            continue
        expected = FLAT.get(
            (name, term), math.log(5) if term.removeprefix("peer1_").startswith("ce") else 0.0
        )
        # MCL's cosines are rounded at 1 / tau, and their squared temperature is 9.
        assert loss.item() == pytest.approx(expected, abs=2e-6)


def test_a_batch_dropped_as_a_whole_is_left_with_its_labels_alone() -> None:
    students = with_grad(random_logits(1, 4, 5))
    signals = signals_of(students, random_logits(2, 4, 5), random_labels(3, 4, 5))
    losses = CrldObjective(CrldConfig(weak_threshold=1.0, strong_threshold=1.0))(signals)
    assert losses.total.item() == (losses.terms["ce_weak"] + losses.terms["ce_strong"]).item()
    assert_finite_with_gradient("crld", students, losses)


def test_the_total_is_the_weighted_sum_of_the_terms() -> None:
    students, teachers, labels_B = random_logits(1, 8, 5), random_logits(2, 8, 5), random_labels(3, 8, 5)
    signals = signals_of(students, teachers, labels_B)
    cases: list[tuple[ObjectiveBase, dict[str, float]]] = [
        (KdConfig(ce_weight=0.3, kd_weight=2.0), {"ce": 0.3, "kd": 2.0}),
        (
            DkdConfig(ce_weight=0.3, alpha=2.0, beta=5.0, warmup_epochs=14),
            {"ce": 0.3, "tckd": 1.0, "nckd": 2.5},  # epoch 7 of 14: half of alpha and beta
        ),
        (
            CrldConfig(ce_weight=0.3, within_weight=1.5, cross_weight=0.7, weak_threshold=0.5),
            {"ce_weak": 0.3, "ce_strong": 0.3, "within": 1.5, "cross": 0.7},
        ),
    ]
    for config, weights in cases:
        losses = build_objective(config)(signals)
        expected = sum(weights[term] * value.item() for term, value in losses.terms.items())
        assert losses.total.item() == pytest.approx(expected, rel=1e-5)
