"""Budgets of experiments whose space compares objectives: equal trials, and a finalist for each."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.config.loading import load_experiment
from orchestrator.config.overrides import Overrides
from trainables.errors import ConfigError

SPACE = """\
name: compared
objectives: {ce: {}, kd: {}, dkd: {}}
search: {each_objective: EACH}
"""
EXPERIMENT = """\
name: mine
data: {name: digits}
teacher: {model: {name: convnet}}
student: {name: convnet}
views: {weak: {views: 1, recipe: []}}
space: SPACE
budget:
  trials: TRIALS
  finalists: FINALISTS
"""


def load(
    folder: Path, trials: int, finalists: int, *, each: str = "true", of: Overrides | None = None
) -> None:
    space, path = folder / "space.yaml", folder / "mine.yaml"
    space.write_text(SPACE.replace("EACH", each))
    text = EXPERIMENT.replace("SPACE", str(space)).replace("TRIALS", str(trials))
    path.write_text(text.replace("FINALISTS", str(finalists)))
    load_experiment(str(path), overrides=of)


@pytest.mark.parametrize(("trials", "take"), [(2, "3"), (7, "6 or 9"), (8, "6 or 9")])
def test_a_budget_that_gives_some_objectives_more_trials_is_refused(
    tmp_path: Path, trials: int, take: str
) -> None:
    compared = r"search\.each_objective of space compared compares 3 objectives"
    said = (
        rf"mine\.yaml:8: budget\.trials: found {trials}; {compared}, each with as many trials: take {take}$"
    )
    with pytest.raises(ConfigError, match=said):
        load(tmp_path, trials, 3)


def test_a_budget_of_fewer_finalists_than_objectives_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"mine\.yaml:9: budget\.finalists: found 2; .* compares 3 objectives, .* finalist: allow 3$",
    ):
        load(tmp_path, 6, 2)


def test_a_budget_of_the_command_line_is_looked_at_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"budget\.trials: found 4; "):
        load(tmp_path, 6, 3, of=Overrides(trials=4))


def test_equal_trials_and_a_finalist_for_each_are_taken_and_other_searches_as_before(tmp_path: Path) -> None:
    load(tmp_path, 3, 3)
    load(tmp_path, 6, 4)
    load(tmp_path, 7, 2, each="false")
