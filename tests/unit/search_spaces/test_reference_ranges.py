"""Each shipped space has the ranges of the methods' reference, and its paper's values come first."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

import pytest

from orchestrator.config.loading import load_space
from search_spaces.domains import Domain, Listed
from search_spaces.space import SpaceConfig
from trainables.config import OBJECTIVE_CONFIGS
from trainables.config.base import Scalar
from trainables.config.objectives import CtkdConfig

BETAS: Final = (0.25, 0.5, 1, 2, 4, 6, 8, 10)
Between = tuple[float, float]
"""Drawn evenly in the logarithm."""
Ranges = dict[str, Between | frozenset[Scalar]]


def one_of(*members: Scalar) -> frozenset[Scalar]:
    return frozenset(members)


# By space: the objective, and what is searched, of its own hyper-parameters or, with a dot, of a recipe's.
REFERENCE: Final[MappingProxyType[str, tuple[str, Ranges]]] = MappingProxyType(
    {
        "kd": (
            "kd",
            {
                "temperature": one_of(1, 2, 3, 4, 6, 8),
                "kd_weight": (0.5, 10),
                "ce_weight": one_of(0.1, 0.5, 1),
            },
        ),
        "lskd": ("kd", {"temperature": one_of(1, 2, 3, 4), "kd_weight": (1, 20)}),
        "dkd": (
            "dkd",
            {
                "beta": one_of(*BETAS),
                "temperature": one_of(1, 2, 4),
                "alpha": one_of(0.5, 1, 2),
                "warmup_epochs": one_of(1, 10, 20),
            },
        ),
        "dist": (
            "dist",
            {"temperature": one_of(1, 2, 4), "dist_weight": (0.5, 4), "beta": one_of(0.5, 1, 2)},
        ),
        "mlld": (
            "mlld",
            {
                "kd_weight": (0.3, 3),
                "mask_percentile": one_of(0, 50, 100),
                "temperatures": one_of("five", "three", "one"),
            },
        ),
        "crld": (
            "crld",
            {
                "ce_weight": one_of(0.1, 0.5, 1, 2),
                "within_weight": (0.25, 8),
                "cross_weight": (0.05, 4),
                "temperature": one_of(1, 2, 3, 4, 6),
                "weak_threshold": one_of(0, 0.5, 0.7, 0.8, 0.9, 0.95),
                "strong_threshold": one_of(0, 0.1, 0.2, 0.4, 0.6),
            },
        ),
        "ctkd": (
            "ctkd",
            {
                "curriculum_epochs": one_of(5, 10, 20, 40),
                "temperature_range": one_of(5, 10, 20),
                "reversal": one_of(0.5, 1, 2),
            },
        ),
        "aekt": (
            "aekt",
            {"max_ratio": one_of(1, 2, 5, 10), "alpha": one_of(0.5, 1, 2), "beta": one_of(*BETAS)},
        ),
        "clkd": (
            "clkd",
            {"logit_weight": (0.1, 100), "covariance_weight": (1e-3, 1), "beta": one_of(0.5, 1, 2, 4)},
        ),
        "ckd": ("ckd", {"contrast_weight": (1, 200), "temperature": one_of(0.1, 0.2, 0.5, 1, 2)}),
        "cbd": ("cbd", {"alpha": one_of(0.2, 0.4, 0.6, 0.8), "beta": (1, 200)}),
        "akd": (
            "akd",
            {
                "teacher_share": one_of(0.25, 0.5, 0.75, 1),
                "epsilon": one_of(2, 4, 8),
                "steps": one_of(3, 5, 10),
            },
        ),
        "zipf": (
            "zipf",
            {"zipf_weight": (0.01, 2), "power": one_of(0.5, 1, 2), "upsample": one_of(1, 2)},
        ),
        "pskd": ("pskd", {"max_trust": one_of(0.5, 0.7, 0.8, 0.9), "growth": one_of("linear", "cosine")}),
        "sp": ("sp", {"sp_weight": (500, 5000)}),
        # The reference has the second at twice the first. A space draws each parameter by itself and cannot
        # say so: both are free, in ranges that hold that ratio.
        "rkd": ("rkd", {"distance_weight": (1, 50), "angle_weight": (2, 100)}),
        "pkt": ("pkt", {"pkt_weight": (1e4, 1e5)}),
        "at": ("at", {"at_weight": (100, 2000)}),
        "crd": (
            "crd",
            {
                "beta": (0.5, 1.5),
                "negatives": one_of(1024, 2048, 4096, 8192, 16384),
                "tau": (0.05, 0.2),
            },
        ),
        "mcl": (
            "mcl",
            {
                "tau": one_of(0.05, 0.07, 0.1, 0.2),
                "soft_vcl_weight": one_of(0.3, 1, 3),
                "soft_icl_weight": one_of(0.3, 1, 3),
                "peers": one_of(2, 3, 4),
            },
        ),
        "simreg": (
            "simreg",
            {
                "depth": one_of(1, 2, 4),
                "width_factor": one_of(1, 2, 4),
                "training.lr": one_of(0.02, 0.05, 0.1),
            },
        ),
        "srd": ("srd", {"alpha": (0.3, 10), "beta": (0.3, 30)}),
        "thkd": (
            "thkd",
            {"form": one_of("released", "paper"), "head_weight": (0.01, 1), "share": (0.05, 0.5)},
        ),
        "fitnet": ("fitnet", {"hint_weight": (10, 200)}),
        "reviewkd": ("reviewkd", {"review_weight": (0.6, 8), "warmup_epochs": one_of(1, 10, 20)}),
        "tat": (
            "tat",
            {
                "tat_weight": one_of(0.05, 0.1, 0.2, 0.4),
                "temperature": one_of(1, 4),
                "kd_weight": one_of(0, 0.5),
            },
        ),
        "mlkd": (
            "mlkd",
            {"relation_weight": (10, 100), "individual_weight": (5, 50), "category_weight": (0.1, 2)},
        ),
        "sskd": (
            "sskd",
            {
                "ss_temperature": (0.1, 1),
                "ratio_ss": one_of(0.5, 0.75, 1),
                "ss_weight": (5, 20),
                "tf_weight": (1.35, 5.4),
                "kd_weight": (0.45, 1.8),
                "ce_weight": one_of(0.05, 0.1, 0.2, 1),
            },
        ),
        "hsakd": ("hsakd", {"temperature": one_of(2, 3, 4, 5), "branch_weight": (0.5, 2)}),
        "dml": (
            "dml",
            {
                "kl_weight": one_of(0.5, 1, 2),
                "temperature": one_of(1, 2, 3),
                "peers": one_of(2, 3, 4),
            },
        ),
        "mfef": (
            "mfef",
            {
                "groups": one_of(2, 4, 8),
                "temperature": one_of(1, 3, 4),
                "kd_weight": one_of(0.5, 1, 2),
                "peers": one_of(2, 3, 4),
            },
        ),
        "mixskd": (
            "mixskd",
            {
                "concentration": one_of(0.1, 0.2, 0.4, 1),
                "temperature": one_of(1, 3, 4),
                "kl_weight": one_of(0.5, 1, 2),
            },
        ),
        "tintem": (
            "tintem",
            {"token_weight": (0.3, 3), "global_weight": (0.3, 3), "tau_scale": (0.5, 5)},
        ),
        "tintem_tokens": (
            "tintem",
            {
                "token_weight": (0.3, 3),
                "feature_weight": (0.3, 3),
                "global_weight": (0.3, 3),
                "local_weight": (0.3, 3),
                "tau_scale": (0.5, 5),
            },
        ),
        "pixel": ("pixel", {"eta": (1, 50)}),
        "deit": (
            "deit",
            {
                "form": one_of("hard", "soft"),
                "distillation_weight": (0.05, 2),
                "temperature": one_of(1, 2, 3, 4, 6),
            },
        ),
    }
)
# What the reference would search too, and an objective's own space does not.
ELSEWHERE: Final[MappingProxyType[str, Ranges]] = MappingProxyType(
    {
        # With labels alone, of which the paper has none; space representation_level has them, and this range.
        "simreg": {"regression_weight": (1, 10)},
    }
)
SECOND_SPACES: Final = {"lskd": "kd", "tintem_tokens": "tintem"}
"""Of an objective that has a space of its name too."""
TINTEM: Final[dict[str, Scalar]] = {
    "token_weight": 1,
    "feature_weight": 1,
    "global_weight": 1,
    "local_weight": 1,
    "tau_scale": 1,
    "image_row": "first",
    "ce_weight": 0,
    "kd_weight": 0,
    "temperature": 4,
}
# What the papers, or the authors' code, take on CIFAR-100.
DEFAULTS: Final[MappingProxyType[str, dict[str, Scalar]]] = MappingProxyType(
    {
        "kd": {"temperature": 4, "ce_weight": 0.1, "kd_weight": 0.9, "standardise": False},
        "lskd": {"temperature": 2, "ce_weight": 0.1, "kd_weight": 9, "standardise": True},
        "dkd": {
            "temperature": 4,
            "ce_weight": 1,
            "alpha": 1,
            "beta": 8,
            "warmup_epochs": 20,
            "standardise": False,
        },
        "dist": {"temperature": 4, "ce_weight": 1, "dist_weight": 2, "beta": 1, "gamma": 1},
        "mlld": {
            "ce_weight": 0.1,
            "kd_weight": 0.9,
            "temperature": 4,
            "temperatures": "five",
            "mask": "released",
            "mask_percentile": 50,
            "standardise": False,
        },
        "crld": {
            "ce_weight": 1,
            "within_weight": 2,
            "cross_weight": 0.5,
            "temperature": 4,
            "weak_threshold": 0.9,
            "strong_threshold": 0.2,
            "gate": "released",
            "base": "kd",
            "standardise": False,
            "alpha": 1,  # base dkd alone, as beta
            "beta": 8,
        },
        "ctkd": {
            "ce_weight": 0.1,
            "kd_weight": 0.9,
            "least_temperature": 1,
            "temperature_range": 20,
            "curriculum_epochs": 10,
            "reversal": 1,
            "base": "kd",
            "alpha": 1,  # base dkd alone, as beta
            "beta": 2,
        },
        "aekt": {
            "temperature": 4,
            "ce_weight": 1,
            "alpha": 1,
            "beta": 8,
            "max_ratio": 5,
            "form": "reconstruction",
        },
        "clkd": {
            "ce_weight": 0.1,
            "logit_weight": 0.5,
            "beta": 2,
            "covariance_weight": 0.4,
            "covariance": "class",
        },
        "ckd": {"ce_weight": 1, "contrast_weight": 100, "temperature": 1},
        "cbd": {"alpha": 0.4, "beta": 100},
        "akd": {
            "teacher_share": 0.5,
            "epsilon": 8,
            "step": 2,
            "steps": 10,
            "random_start": True,
            "attack_target": "labels",
            "teacher_input": "view",
        },
        "zipf": {"zipf_weight": 0.1, "power": 1, "upsample": 2, "correct_only": False},
        "pskd": {"max_trust": 0.8, "growth": "linear", "half": False},
        "sp": {
            "ce_weight": 1,
            "sp_weight": 3000,
            # Not the paper's, which has the last feature map: a cache serves embeddings unasked, and the
            # teacher need not run beside the student.
            "level": "embedding",
            "kd_weight": 0,
            "temperature": 4,
        },
        "rkd": {
            "ce_weight": 1,
            "distance_weight": 25,
            "angle_weight": 50,
            "kd_weight": 0,
            "temperature": 4,
        },
        "pkt": {"ce_weight": 1, "pkt_weight": 30_000, "kd_weight": 0, "temperature": 4},
        "at": {
            "ce_weight": 1,
            "at_weight": 1000,
            "form": "benchmark",
            "stages": "1,2,3",
            "kd_weight": 0,
            "temperature": 4,
        },
        "fitnet": {
            "ce_weight": 1,
            "hint_weight": 100,
            "hint": "stage2",
            "teacher_maps": "post",
            "relu": True,
            "hint_epochs": 0,
            "kd_weight": 0,
            "temperature": 4,
        },
        "reviewkd": {
            "ce_weight": 1,
            "review_weight": 5,
            "levels": 4,
            "teacher_maps": "pre",
            "warmup_epochs": 20,
            "kd_weight": 0,
            "temperature": 4,
        },
        "tat": {
            "ce_weight": 0.1,
            "tat_weight": 0.2,
            "orientation": "student_row",
            "theta": "identity",
            "unequal_maps": "refuse",
            "kd_weight": 0,
            "temperature": 1,
        },
        "mlkd": {
            "ce_weight": 1,
            "individual_weight": 20,
            "relation_weight": 50,
            "category_weight": 1,
            "relation_temperature": 0.5,
            "category_temperature": 0.07,
            "dim": 128,
            "width_factor": 16,
            "kd_weight": 0,
            "temperature": 4,
        },
        "sskd": {
            "ce_weight": 0.1,
            "kd_weight": 0.9,
            "tf_weight": 2.7,
            "ss_weight": 10,
            "temperature": 4,
            "ss_temperature": 0.5,
            "ratio_tf": 1,
            "ratio_ss": 0.75,
        },
        "hsakd": {
            "ce_weight": 1,
            "kd_weight": 1,
            "branch_weight": 1,
            "temperature": 3,
            "stages": 3,
            # Inferred: the paper's branches are the network's later stages, as deep as these.
            "branch_depth": 1,
        },
        "dml": {"peers": 2, "kl_weight": 1, "temperature": 1, "target": "each", "over_peers": "mean"},
        "mfef": {"peers": 2, "groups": 4, "temperature": 3, "kd_weight": 1, "ramp_epochs": 0},
        "mixskd": {
            "mode": "paper",
            "concentration": 0.4,
            "kl_weight": 1,
            "temperature": 3,
            "feature_weight": 1,
            "disc_weight": 0,
        },
        # Not the paper's level, which is that of tintem_tokens: tokens are of two vision transformers with as
        # many each, and every pair of networks has embeddings, which a cache serves unasked.
        "tintem": {"level": "embedding", **TINTEM},
        "tintem_tokens": {"level": "tokens", **TINTEM},
        "pixel": {"ce_weight": 0.1, "kd_weight": 0.9, "temperature": 4, "eta": 50, "feature_weight": 0},
        "deit": {
            "form": "hard",
            "ce_weight": 0.5,
            "distillation_weight": 0.5,
            "temperature": 3,
            "kd_weight": 0,
        },
        "crd": {
            "ce_weight": 1,
            "beta": 0.8,
            "kd_weight": 0,
            "tau": 0.07,
            "negatives": 16384,
            "momentum": 0.5,
            "dim": 128,
            "positive": "exact",
            "temperature": 4,
            # Neither is the released code's (sample, repeat). Each sample's negatives have the same
            # distribution as with its own draw. That takes a product with the whole bank and B draws of K out
            # of N: a step would pass the bound of 1.20 of cross-entropy's.
            "draw": "batch",
            # Where a pool has fewer than K, each of it is a negative once: repeated draws have each as often
            # as another in the mean, with noise, and cost more. K is in q, and in the gauge `negatives`.
            "when_short": "cap",
        },
        "simreg": {
            "ce_weight": 0,
            "kd_weight": 0,
            "regression_weight": 1,
            "depth": 4,
            "width_factor": 2,
            "temperature": 4,
        },
        "srd": {
            "ce_weight": 1,
            "alpha": 1,
            "beta": 1,
            "kd_weight": 0,
            "temperature": 4,
            "level": "auto",  # the paper's last map, where the student has one; inferred where it has none
            "activation": "relu",
        },
        "thkd": {
            "form": "released",  # the only one of which values are known
            "ce_weight": 1,
            "kd_weight": 1.5,
            "head_weight": 0.02,
            "temperature": 4,
            "share": 0.3,  # form paper alone; inferred, within the reference's 0.05 to 0.5
            "embedding": "none",
            "embedding_weight": 1,  # of an embedding's distance alone; inferred
            "bridge": "auto",  # none where the widths are equal, as in the paper; inferred where they are not
        },
        "ls": {"smoothing": 0.1},
        "mcl": {
            "peers": 2,
            "form": "batch",
            "tau": 0.1,
            "vcl_weight": 0.1,
            "soft_vcl_weight": 1,
            "icl_weight": 0.1,
            "soft_icl_weight": 1,
            "temperature": 3,
            "kd_weight": 0,
            "kd_hearers": "released",
            "dim": 128,
            "layers": False,
            "negatives": 8192,  # form bank alone, as momentum
            "momentum": 0.5,
        },
    }
)
# Common options that stand for nothing where a paper has nothing of the kind.
COMMON: Final = {"warmup_epochs": 1, "final_temperature": 0.0, "temperature_schedule": "linear"}
SEARCHED: Final = [(space, key) for space, (_, ranges) in REFERENCE.items() for key in ranges]


def domain_of(space: str, objective: str, key: str) -> Domain:
    section, _, name = key.rpartition(".")
    return load_space(space).domains(objective)[section or objective, name]


@pytest.mark.parametrize(("space", "key"), SEARCHED, ids=[f"{space}-{key}" for space, key in SEARCHED])
def test_a_shipped_space_has_the_range_of_the_reference(space: str, key: str) -> None:
    objective, ranges = REFERENCE[space]
    domain, range_ = domain_of(space, objective, key), ranges[key]
    if isinstance(range_, tuple):
        assert (domain.kind, domain.arguments) == ("loguniform", range_)
    elif isinstance(domain, Listed):
        assert set(domain.arguments) == range_
    else:  # finer than the reference, with the same ends
        assert all(domain.contains(member) for member in range_)
        assert set(domain.corners()) == {min(range_), max(range_)}


@pytest.mark.parametrize("space", DEFAULTS)
def test_the_first_student_of_a_space_is_the_papers_in_all_hyper_parameters(space: str) -> None:
    shipped = load_space(space)
    recipe = next(iter(shipped.training.corners()))  # which no paper's values are in: the searcher draws it
    chosen = shipped.resolve(shipped.first_points()[0] | {"training": recipe}).objective
    built = OBJECTIVE_CONFIGS[str(chosen["name"])].from_plain(chosen)
    assert {key: getattr(built, key) for key in DEFAULTS[space]} == DEFAULTS[space]


def test_ctkd_on_dkd_has_the_weights_of_its_authors_command() -> None:
    built = CtkdConfig.from_plain({"base": "dkd"})
    assert built == CtkdConfig(base="dkd", ce_weight=1.0, kd_weight=1.0, alpha=1.0, beta=2.0)
    given = CtkdConfig.from_plain({"base": "dkd", "ce_weight": 0.5})
    assert (given.ce_weight, given.kd_weight) == (0.5, 1.0)
    assert CtkdConfig.from_plain({"base": "dkd", "kd_weight": 0.9}).plain()["kd_weight"] == 0.9


def test_the_first_student_of_a_space_of_ctkd_on_dkd_has_those_weights_too() -> None:
    plain = {
        "name": "s",
        "objectives": {"ctkd": {"base": "dkd", "kd_weight": {"choice": [0.9, 1.0]}}},
        "search": {"algorithm": "random", "points_to_evaluate": "defaults"},
    }
    space = SpaceConfig.from_plain(plain)
    assert space.first_points() == [{"ctkd": {"kd_weight": 1.0}}]
    chosen = space.resolve(space.first_points()[0]).objective
    assert CtkdConfig.from_plain(chosen) == CtkdConfig(base="dkd")


@pytest.mark.parametrize("name", sorted({*DEFAULTS} - {*SECOND_SPACES}))
def test_an_objectives_own_defaults_are_the_papers_and_none_is_left_out(name: str) -> None:
    config = OBJECTIVE_CONFIGS[name]()
    stated = {"name": name, **COMMON, **DEFAULTS[name]}
    assert {field: getattr(config, field) for field in type(config).model_fields} == {
        field: stated.get(field, "left out") for field in type(config).model_fields
    }


def test_every_objective_but_the_control_has_a_space_of_its_own() -> None:
    assert {*DEFAULTS} == {*OBJECTIVE_CONFIGS, *SECOND_SPACES} - {"ce"}
    assert {*REFERENCE} == {*DEFAULTS} - {"ls"}
    assert all(REFERENCE[space][0] == objective for space, objective in SECOND_SPACES.items())
    for name in OBJECTIVE_CONFIGS:
        if name != "ce":  # which has nothing to search
            assert load_space(name).objective_names == (name,)


def test_what_is_searched_elsewhere_is_not_in_an_objectives_own_space() -> None:
    for name, ranges in ELSEWHERE.items():
        assert not {(name, key) for key in ranges} & load_space(name).domains(name).keys()


@pytest.mark.parametrize(
    ("space", "least"),
    [
        ("logit_level", {"kd", "dkd", "dist", "ctkd", "aekt", "clkd", "ckd", "mlld", "crld"}),
        (
            "representation_level",
            {
                *("kd", "sp", "rkd", "pkt", "at", "crd", "simreg", "srd", "thkd", "fitnet", "reviewkd"),
                *("tat", "tintem", "mlkd", "sskd", "hsakd"),
            },
        ),
    ],
)
def test_where_the_objective_itself_is_searched_the_first_student_of_each_is_its_papers(
    space: str, least: set[str]
) -> None:
    several = load_space(space)
    for point in several.first_points():
        chosen = several.resolve(point).objective
        name = str(chosen["name"])
        constants = several.objectives.given()[name].constants()  # labels, where the paper has none
        config = OBJECTIVE_CONFIGS[name]
        assert config.from_plain(chosen) == config.from_plain({"name": name, **constants})
    searched = {
        name: {key for section, key in several.domains(name) if section == name}
        for name in several.objective_names
    }
    assert least <= set(searched)
    assert all(searched.values())
    for name, keys in searched.items():  # no wider than in the objective's own space
        own, elsewhere = load_space(name).domains(name), ELSEWHERE.get(name, {})
        for key in keys & {key for _, key in own}:
            assert all(own[name, key].contains(end) for end in several.domains(name)[name, key].corners())
        for key in keys & elsewhere.keys():
            assert several.domains(name)[name, key].arguments == elsewhere[key]
