"""What a fork of population based training may change: nothing that its objective's state depends on."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from search_spaces.space import SpaceConfig


def population(**objectives: dict[str, Any]) -> SpaceConfig:
    return SpaceConfig.from_plain({"name": "mine", "objectives": objectives, "scheduler": {"name": "pbt"}})


def perturbed(**objectives: dict[str, Any]) -> list[tuple[str, str]]:
    return [(section, name) for section, name, _ in population(**objectives).perturbed()]


def test_a_fork_keeps_what_sizes_the_objectives_own_layers() -> None:
    simreg = {"depth": {"choice": [1, 4]}, "ce_weight": {"uniform": [0, 1]}}
    depth_of_another = {"temperature": {"uniform": [1, 8]}, "branch_depth": {"choice": [1, 2]}}
    assert perturbed(simreg=simreg, hsakd=depth_of_another) == [
        ("simreg", "ce_weight"),
        ("hsakd", "temperature"),
    ]


def test_a_weight_that_may_become_none_is_kept_and_one_that_may_not_is_perturbed() -> None:
    labels = {"ce_weight": {"uniform": [0, 1]}}
    assert perturbed(pixel={"eta": {"loguniform": [1, 50]}, **labels}) == [
        ("pixel", "ce_weight"),
        ("pixel", "eta"),
    ]
    assert perturbed(pixel={"eta": {"uniform": [0, 50]}, **labels}) == [("pixel", "ce_weight")]
    assert perturbed(pixel={"eta": {"choice": [0.0, 50.0]}, **labels}) == [("pixel", "ce_weight")]


def test_a_space_of_which_nothing_is_left_to_perturb_says_why() -> None:
    with pytest.raises(
        ValidationError, match=r"has a domain here but simreg\.depth, simreg\.width_factor, without"
    ):
        population(simreg={"ce_weight": 1.0, "depth": {"choice": [1, 4]}, "width_factor": {"choice": [1, 2]}})
