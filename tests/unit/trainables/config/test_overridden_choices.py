"""Hyper-parameters whose default depends on a choice, where the choice is replaced in a configuration."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from trainables.config import OBJECTIVE_CONFIGS, ObjectiveBase
from trainables.config.objectives import CtkdConfig, DeitConfig, FitnetConfig
from trainables.config.representation.preparation import PrepareBranchesConfig

CHOICES: dict[str, tuple[type[ObjectiveBase], dict[str, Any]]] = {
    "fitnet": (FitnetConfig, {"teacher_maps": "pre"}),
    "deit": (DeitConfig, {"form": "soft"}),
    "ctkd": (CtkdConfig, {"base": "dkd"}),
}


@pytest.mark.parametrize("name", CHOICES)
def test_a_replaced_choice_brings_its_own_defaults(name: str) -> None:
    config, choice = CHOICES[name]
    chosen = config.from_plain(choice)
    assert config().with_overrides(**choice) == chosen
    assert config.from_plain(config().plain()).with_overrides(**choice) == chosen
    back = {field: getattr(config(), field) for field in choice}
    assert chosen.with_overrides(**back) == config()
    assert chosen.with_overrides(kd_weight=3.0) == config.from_plain({**choice, "kd_weight": 3.0})


def test_a_value_other_than_the_default_stays_and_one_that_is_given_counts() -> None:
    weighed = DeitConfig(ce_weight=0.7).with_overrides(form="soft")
    assert (weighed.ce_weight, weighed.distillation_weight) == (0.7, 0.1)
    given = DeitConfig().with_overrides(form="soft", ce_weight=0.5)
    assert (given.ce_weight, given.distillation_weight) == (0.5, 0.1)
    assert FitnetConfig().with_overrides(teacher_maps="pre", relu=True).relu


@pytest.mark.parametrize("name", OBJECTIVE_CONFIGS)
def test_without_changes_nothing_changes_and_mistakes_are_refused(name: str) -> None:
    config = OBJECTIVE_CONFIGS[name]()
    assert config.with_overrides() == config
    with pytest.raises(ValidationError, match="no_such"):
        config.with_overrides(no_such=1)


def test_what_has_no_default_is_kept() -> None:
    config = PrepareBranchesConfig(branches=3)
    assert config.with_overrides(joint=True) == PrepareBranchesConfig(branches=3, joint=True)
