"""The shipped experiment on a real head node with token authentication, sent by Ray's own command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestrator.records.kept_answers import answers_file
from tests.integration.head_node import HeadNode, ray_command
from trainables.evaluation.answers_file import read_answers

pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.slow]

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("orchestrator", "trainables", "search_spaces", "cluster")


@pytest.fixture(scope="module")
def summary(head_node: HeadNode, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a small budget of the demo found as a Ray job."""
    folder = tmp_path_factory.mktemp("job")
    for package in PACKAGES:
        shutil.copytree(REPOSITORY / package, folder / package)
    out = folder / "results"
    options = ["--trials", "6", "--finalists", "1", "--out", str(out)]
    job = [*ray_command(), "job", "submit", "--working-dir", ".", "--"]
    ended = head_node.run(
        [*job, "python", "-m", "orchestrator", "run", "digits", *options], cwd=folder, timeout_s=1200
    )
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-4000:]
    assert head_node.token not in ended.stdout + ended.stderr
    document: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return document | {"out": str(out)}  # in the file it is relative to itself


def test_the_job_finds_a_champion(summary: dict[str, Any]) -> None:
    assert len(summary["trials"]) == 6
    assert summary["champion"]["trial_id"]


def test_the_demos_teacher_is_good_enough_to_learn_from(summary: dict[str, Any]) -> None:
    assert summary["teacher"]["selection_accuracy"] >= 0.98


def test_the_demos_champion_is_above_the_control_which_has_room(summary: dict[str, Any]) -> None:
    champion = summary["champion"]["trial_id"]
    (own,) = (one["control"] for one in summary["finalists"] if champion in one["trials"])
    control = own["selection_mean"]
    assert 0.90 <= control <= 0.98
    assert summary["champion"]["selection_accuracy"] > control


def test_the_report_has_single_answers_of_champion_control_and_teacher(summary: dict[str, Any]) -> None:
    page = (Path(summary["out"]) / "report.html").read_text(encoding="utf-8")
    found = read_answers(answers_file(Path(summary["out"]), summary["champion"]["trial_id"]))
    assert found.teacher is not None
    for who, network in (("champion", found.student), ("teacher", found.teacher)):
        assert f"{who}, ece {network.figures['ece']:.4f}" in page
    assert page.count("<img ") == len(found.shown_K) > 0
    assert "Accuracy by class" in page
