"""What changes over a course: closed forms, and what configurations that do not use it are known by."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from trainables.config import (
    OBJECTIVE_CONFIGS,
    CrldConfig,
    DkdConfig,
    KdConfig,
    ModelConfig,
    Role,
    TrainingConfig,
    TrialSpec,
    digest_of,
)
from trainables.config.objectives import ClkdConfig, CtkdConfig, TemperatureSchedule
from trainables.config.schedules import temperature_at, warm_up

LINEAR, COSINE = TemperatureSchedule.LINEAR, TemperatureSchedule.COSINE
FIELDS = ("warmup_epochs", "final_temperature", "temperature_schedule")
WITHOUT_TEMPERATURE = ("clkd", "cbd", "akd", "ctkd")  # ctkd learns its own

# What plain data held before there were schedules.
EARLIER: dict[str, dict[str, Any]] = {
    "kd": {"temperature": 4.0, "ce_weight": 0.1, "kd_weight": 0.9, "standardise": False},
    "dkd": {
        "temperature": 4.0,
        "ce_weight": 1.0,
        "alpha": 1.0,
        "beta": 8.0,
        "warmup_epochs": 20,
        "standardise": False,
    },
    "dist": {"temperature": 4.0, "ce_weight": 1.0, "dist_weight": 2.0, "beta": 1.0, "gamma": 1.0},
    "ckd": {"temperature": 1.0, "ce_weight": 1.0, "contrast_weight": 100.0},
    "clkd": {
        "ce_weight": 0.1,
        "logit_weight": 0.5,
        "beta": 2.0,
        "covariance_weight": 0.4,
        "covariance": "class",
    },
    "aekt": {
        "form": "reconstruction",
        "temperature": 4.0,
        "ce_weight": 1.0,
        "alpha": 1.0,
        "beta": 8.0,
        "max_ratio": 5.0,
    },
    "ctkd": {
        "ce_weight": 0.1,
        "kd_weight": 0.9,
        "base": "kd",
        "alpha": 1.0,
        "beta": 2.0,
        "least_temperature": 1.0,
        "temperature_range": 20.0,
        "curriculum_epochs": 10,
        "reversal": 1.0,
    },
    "cbd": {"alpha": 0.4, "beta": 100.0},
    "mlld": {
        "temperature": 4.0,
        "temperatures": "five",
        "ce_weight": 0.1,
        "kd_weight": 0.9,
        "mask": "released",
        "mask_percentile": 50.0,
        "standardise": False,
    },
    "crld": {
        "temperature": 4.0,
        "ce_weight": 1.0,
        "within_weight": 2.0,
        "cross_weight": 0.5,
        "weak_threshold": 0.9,
        "strong_threshold": 0.2,
        "gate": "released",
        "base": "kd",
        "alpha": 1.0,
        "beta": 8.0,
        "standardise": False,
    },
}


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (LINEAR, [4.0, 3.25, 2.5, 1.75, 1.0]),
        (COSINE, [4.0, 3.560660171779821, 2.5, 1.439339828220179, 1.0]),
    ],
)
def test_a_temperature_begins_and_ends_where_it_is_told(
    schedule: TemperatureSchedule, expected: list[float]
) -> None:
    way = [temperature_at(e, 5, first=4.0, last=1.0, schedule=schedule) for e in range(1, 6)]
    assert way == pytest.approx(expected, rel=1e-14)
    assert (way[0], way[-1]) == (4.0, 1.0)


@pytest.mark.parametrize("schedule", TemperatureSchedule)
def test_a_temperature_may_rise_and_ends_exactly_there(schedule: TemperatureSchedule) -> None:
    assert temperature_at(3, 3, first=0.7, last=4.9, schedule=schedule) == 4.9
    assert temperature_at(2, 3, first=0.7, last=4.9, schedule=schedule) == pytest.approx(2.8)


@pytest.mark.parametrize("schedule", TemperatureSchedule)
def test_a_course_of_one_epoch_has_the_first_temperature(schedule: TemperatureSchedule) -> None:
    assert temperature_at(1, 1, first=4.0, last=1.0, schedule=schedule) == 4.0


@pytest.mark.parametrize(("epoch", "epochs"), [(0, 5), (6, 5)])
def test_an_epoch_that_the_course_has_not_is_refused(epoch: int, epochs: int) -> None:
    with pytest.raises(ValueError, match=f"found epoch {epoch}; allowed: 1 to {epochs}"):
        temperature_at(epoch, epochs, first=4.0, last=1.0, schedule=LINEAR)


def test_a_warm_up_goes_from_one_part_to_the_whole() -> None:
    assert [warm_up(epoch, 4) for epoch in range(1, 7)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert warm_up(1, 1) == 1.0


def test_the_configuration_of_an_epoch_is_a_constant_one() -> None:
    config = KdConfig(final_temperature=1.0, temperature_schedule=COSINE, kd_weight=2.0, warmup_epochs=4)
    assert config.at(1, 5) == KdConfig(temperature=4.0, kd_weight=0.5)
    assert config.at(3, 5) == KdConfig(temperature=2.5, kd_weight=1.5)
    assert config.at(5, 5) == KdConfig(temperature=1.0, kd_weight=2.0)
    assert config.at(3, 5).at(1, 5) == config.at(3, 5)
    assert config.varying(3, 5) == {"warmup": 0.75, "temperature": 2.5}


def test_a_warm_up_scales_each_weight_of_the_teacher_and_no_other() -> None:
    assert DkdConfig().at(5, None) == DkdConfig(alpha=0.25, beta=2.0, warmup_epochs=1)
    assert DkdConfig().at(21, None) == DkdConfig(warmup_epochs=1)
    crld = CrldConfig(warmup_epochs=2, base="dkd")
    assert crld.at(1, None) == CrldConfig(base="dkd", within_weight=1.0, cross_weight=0.25)
    clkd = ClkdConfig(warmup_epochs=2)
    assert clkd.at(1, None) == ClkdConfig(logit_weight=0.25, covariance_weight=0.2)


def test_a_configuration_without_schedules_is_that_of_every_epoch() -> None:
    for name, config in OBJECTIVE_CONFIGS.items():
        if name not in {"dkd", "reviewkd"}:  # their papers warm up
            constant = config()
            assert constant.varying(7, None) == {}
            assert constant.at(7, None) is constant


def test_a_temperature_that_changes_asks_for_the_length_of_the_course() -> None:
    with pytest.raises(ValueError, match="needs the epochs of the course"):
        KdConfig(final_temperature=1.0).at(1, None)


@pytest.mark.parametrize("name", EARLIER)
def test_what_does_not_change_over_a_course_is_no_part_of_what_a_trial_is_known_by(name: str) -> None:
    plain = {"name": name, **EARLIER[name]}
    config = OBJECTIVE_CONFIGS[name].from_plain(plain)
    assert config == OBJECTIVE_CONFIGS[name]()
    assert config.digest() == digest_of(plain)
    spec = {
        "trial_id": "a-1",
        "role": "search",
        "objective": plain,
        "student": ModelConfig(name="convnet").plain(),
        "training": TrainingConfig().plain(),
        "seed": 3,
        "fork": None,
        "keep_states": False,
    }
    assert TrialSpec.from_plain(spec).digest() == digest_of(spec)
    assert TrialSpec.from_plain(spec).role is Role.SEARCH


def test_what_changes_is_kept_in_plain_data() -> None:
    config = KdConfig(warmup_epochs=3, final_temperature=1.0, temperature_schedule=COSINE)
    assert config.plain().items() >= {"warmup_epochs": 3, "final_temperature": 1.0}.items()
    assert KdConfig.from_plain(config.plain()) == config
    assert len({made.digest() for made in (config, KdConfig(), KdConfig(warmup_epochs=3))}) == 3
    taken_back = config.with_overrides(warmup_epochs=1, final_temperature=0, temperature_schedule="linear")
    assert taken_back.digest() == KdConfig().digest()
    assert DkdConfig(warmup_epochs=1).plain()["warmup_epochs"] == 1  # its default is another


def test_every_objective_with_a_teacher_has_the_schedules_that_make_sense_for_it() -> None:
    for name, config in OBJECTIVE_CONFIGS.items():
        fields = config.model_fields
        warms = bool(config.teacher_banks) and name != "akd"  # whose teacher has a share and no weight
        assert ("warmup_epochs" in fields) == bool(config.teacher_weights) == warms
        assert set(config.teacher_weights) <= set(fields)
        tempered = {"final_temperature", "temperature_schedule"} & set(fields)
        assert len(tempered) == (2 if "temperature" in fields and config.teacher_banks else 0)


def test_the_defaults_hold_what_plain_data_leaves_out() -> None:
    defaults = KdConfig.defaults()
    assert defaults == {
        **KdConfig().plain(),
        "warmup_epochs": 1,
        "final_temperature": 0.0,
        "temperature_schedule": "linear",
    }
    assert type(defaults["temperature_schedule"]) is str
    assert DkdConfig.defaults()["warmup_epochs"] == 20


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"warmup_epochs": 0}, "greater than or equal to 1"),
        ({"warmup_epochs": 1.5}, "valid integer"),
        ({"final_temperature": -1.0}, "greater than or equal to 0"),
        ({"final_temperature": 101.0}, "less than or equal to 100"),
        ({"temperature_schedule": "step"}, "'linear' or 'cosine'"),
    ],
)
def test_numbers_out_of_bounds_are_refused(bad: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        KdConfig.from_plain(bad)


@pytest.mark.parametrize("name", [*WITHOUT_TEMPERATURE, "ce", "pskd"])
def test_an_objective_without_a_temperature_to_set_refuses_to_change_it(name: str) -> None:
    with pytest.raises(ValidationError, match=r"final_temperature\n.*not permitted"):
        OBJECTIVE_CONFIGS[name].from_plain({"final_temperature": 1.0})


def test_a_learned_temperature_can_warm_up_in_its_weight() -> None:
    assert CtkdConfig(warmup_epochs=3).at(1, None) == CtkdConfig(kd_weight=0.3)
