"""Two experiments side by side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.config.loading import load_experiment
from orchestrator.config.overrides import Overrides
from orchestrator.records.events import EpochEnded, TrialEnded, TrialStarted
from orchestrator.records.ledger import Ledger
from orchestrator.records.summary import Summary
from orchestrator.reports.two_experiments import (
    LONGEST,
    NOT_SET,
    OneExperiment,
    comparison_rows,
    difference_rows,
    facts_of,
    file_differences,
    gain_of_second,
    sentences,
)
from trainables.config import Role


@pytest.fixture
def digits(tmp_path: Path, summary: Summary) -> OneExperiment:
    loaded = load_experiment("digits", overrides=Overrides(out=tmp_path), check_paths=False)
    ledger = Ledger(tmp_path / "a")
    for trial, status, accuracy in (("kd-1", "completed", 0.9), ("kd-2", "pruned", 0.95)):
        best = {"selection/accuracy": accuracy, "seconds": 60.0}
        ledger.append(
            TrialStarted(trial=trial, role=Role.SEARCH, search="s", objective="kd", parameters={}, spec={})
        )
        ledger.append(EpochEnded(trial=trial, epoch=1, metrics=best))
        ledger.append(
            TrialEnded.model_validate(
                {
                    "trial": trial,
                    "status": status,
                    "epochs": 1,
                    "final": best,
                    "reason": None,
                    "best_epoch": 1,
                    "best": best,
                    "checkpoint": None,
                }
            )
        )
    return OneExperiment("digits", loaded.config, loaded.space, ledger, summary)


def but(one: OneExperiment, **changes: object) -> OneExperiment:
    return replace(one, experiment=one.experiment.with_overrides(**changes))


def test_figures_of_both_stand_beside_each_other(digits: OneExperiment) -> None:
    rows = {label: (first, second) for label, first, second in comparison_rows(*[facts_of(digits)] * 2)}
    assert rows["champion"] == ("f1-1", "f1-1")
    assert rows["test, %"][0] == "94.00 ± 1.00"
    assert rows["test gain over its control, points (95 %)"][0].startswith("+4.00 [")
    assert rows["trials"][0] == "2 (1 completed, 1 pruned)"
    assert rows["best trial of the search"][0] == "kd-1"
    assert rows["teacher's test, %"][0] == "97.00"
    assert rows["time of all trainings"][0] == "0:02:00"


def test_a_run_that_is_not_over_has_no_champion_and_says_so(digits: OneExperiment) -> None:
    running = replace(digits, summary=None)
    rows = {row[0]: row[1:] for row in comparison_rows(facts_of(digits), facts_of(running))}
    assert rows["state"] == ("finished", "not over")
    assert rows["champion"] == ("f1-1", "")
    assert any(
        "Not over, so without a champion: B" in line for line in sentences(digits, running, ("A", "B"))
    )


def test_what_differs_in_the_files_has_its_dotted_name_and_both_values(digits: OneExperiment) -> None:
    training = digits.experiment.plain()["training"]
    other = but(digits, training={**training, "epochs": 3}, name="other", out="elsewhere")
    assert file_differences(digits, other) == {"training.epochs": [training["epochs"], 3]}
    assert file_differences(digits, digits) == {}


def test_a_section_that_one_of_them_lacks_is_one_difference(digits: OneExperiment) -> None:
    loaded = load_experiment("digits", overrides=Overrides(space="kd"), check_paths=False)
    other = replace(digits, space=loaded.space, experiment=loaded.config)
    found = file_differences(digits, other)
    assert found["space.objectives.crld"][1] == NOT_SET
    assert isinstance(found["space.objectives.crld"][0], dict)
    rows = difference_rows(found)
    assert all(len(cell) <= LONGEST for row in rows for cell in row[1:])


def test_the_second_champions_gain_is_paired_by_seed(digits: OneExperiment, summary: Summary) -> None:
    second = summary.finalists[1]
    better = second.with_overrides(test_accuracies=(0.95, 0.97, 0.96), seeds=summary.finalists[0].seeds)
    champion = summary.champion.with_overrides(trial_id=second.trials[0])
    other = replace(digits, summary=summary.with_overrides(finalists=[better], champion=champion))
    gain = gain_of_second(digits, other)
    assert gain is not None
    assert (gain.n, round(gain.mean, 6)) == (3, 0.02)
    assert any("+2.00 [" in line for line in sentences(digits, other, ("A", "B")))


def test_other_data_cannot_be_compared_and_that_is_said(digits: OneExperiment) -> None:
    data = digits.experiment.plain()["data"]
    other = but(digits, data={**data, "selection_fraction": 0.1})
    assert gain_of_second(digits, other) is None
    assert "accuracies of one say nothing of the other" in sentences(digits, other, ("A", "B"))[0]
