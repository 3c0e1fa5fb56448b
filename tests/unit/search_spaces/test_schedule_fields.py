"""Schedules of an objective in a search space: as domains, as plain values, and among the first points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.config.loading import load_space
from search_spaces.space import SpaceConfig
from trainables.config import OBJECTIVE_CONFIGS, DkdConfig, KdConfig
from trainables.errors import ConfigError

CHANGING = {
    "temperature": {"uniform": [1, 8]},
    "final_temperature": {"choice": [0, 1, 2]},
    "temperature_schedule": {"choice": ["linear", "cosine"]},
    "warmup_epochs": {"randint": [1, 6]},
}


def space_of(**objectives: dict[str, Any]) -> SpaceConfig:
    return SpaceConfig.from_plain({"name": "mine", "objectives": objectives})


def test_every_corner_of_a_space_that_searches_schedules_builds() -> None:
    (section,) = space_of(kd=CHANGING).objectives.given().values()
    built = [OBJECTIVE_CONFIGS["kd"].from_plain({"name": "kd", **corner}) for corner in section.corners()]
    assert len(built) == 2 * 3 * 2 * 2
    assert {config.model_dump().get("final_temperature", 0.0) for config in built} == {0.0, 1.0, 2.0}


def test_the_papers_values_come_first_though_plain_data_leaves_them_out() -> None:
    space = space_of(kd=CHANGING, dkd={"warmup_epochs": {"choice": [1, 20]}})
    kd, dkd = (space.resolve(point).objective for point in space.first_points())
    assert kd == {
        "name": "kd",
        "temperature": 4.0,
        "final_temperature": 0,
        "temperature_schedule": "linear",
        "warmup_epochs": 1,
    }
    assert KdConfig.from_plain(kd) == KdConfig()
    assert DkdConfig.from_plain(dkd) == DkdConfig()


def test_a_space_whose_domain_leaves_the_papers_value_out_is_refused_in_words() -> None:
    with pytest.raises(ValidationError, match=r"default 0\.0 lies outside, but is tried first"):
        space_of(kd={"final_temperature": {"uniform": [1, 4]}})


def test_plain_values_are_not_searched_and_reach_the_configuration() -> None:
    fixed = {"final_temperature": 1.0, "temperature_schedule": "cosine", "warmup_epochs": 3}
    space = space_of(kd={"temperature": {"uniform": [1, 8]}, **fixed})
    (point,) = space.first_points()
    assert space.resolve(point).objective == {"name": "kd", "temperature": 4.0, **fixed}
    assert space.resolve(point).parameters == {"temperature": 4.0}


def test_population_based_training_may_perturb_them() -> None:
    plain = {"name": "mine", "objectives": {"kd": CHANGING}, "scheduler": {"name": "pbt"}}
    perturbed = {name for _, name, _ in SpaceConfig.from_plain(plain).perturbed()}
    assert perturbed == set(CHANGING)


@pytest.mark.parametrize(
    ("objective", "key"), [("ctkd", "final_temperature"), ("akd", "warmup_epochs"), ("ce", "warmup_epochs")]
)
def test_an_objective_that_has_no_such_schedule_says_what_it_has(
    tmp_path: Path, objective: str, key: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\nobjectives:\n  {objective}:\n    {key}: {{choice: [1, 2]}}\n")
    with pytest.raises(ConfigError, match=rf"(?s):4:.*{key}: unknown key; allowed: "):
        load_space(str(path))


@pytest.mark.parametrize(
    ("domain", "says"),
    [
        ({"final_temperature": {"uniform": [-1, 2]}}, "greater than or equal to 0"),
        ({"warmup_epochs": {"choice": [0, 2]}}, "greater than or equal to 1"),
        ({"temperature_schedule": {"choice": ["linear", "step"]}}, "'linear' or 'cosine'"),
    ],
)
def test_a_domain_that_reaches_beyond_the_bounds_is_refused(domain: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        space_of(kd=domain)
