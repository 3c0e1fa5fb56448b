"""A whole run of networks that teach each other, without a teacher: killed on its way, it goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from orchestrator.records.kept_answers import answers_file
from orchestrator.records.student_figures import Finalist
from orchestrator.records.summary import Summary, read_summary
from orchestrator.records.tables.more_columns import ENSEMBLE, PEERS
from tests.integration.command_line_runs import EXPERIMENT, Task, finish, running
from tests.integration.watched_search import ends_of, epochs_of
from trainables.evaluation.answers_file import read_answers
from trainables.export.model_card import ModelCard, read_intact_card

pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.slow]

EPOCHS, LONGER = 4, 8
"""What the file asks for, and in how many epochs cross-entropy computes as much as two networks."""
SEEDS = 2
STUDENT = {"body.1.weight": (10, 64), "body.1.bias": (10,)}
PARAMETERS = 650
STAGES = [
    "preflight",
    "data",
    "search",
    "profile",
    "finalists",
    "equal compute",
    "test",
    "export",
    "register",
    "summary",
]

Events = list[dict[str, Any]]


@dataclass(frozen=True)
class Run:
    """A finished run, and what was there before it went on."""

    task: Task
    printed: str
    console: str
    comparing: Events
    """Of the ledger, when it was killed between two controls of equal compute."""
    kept: dict[Path, int]
    """Weights of the students that were trained then, and when they were written."""

    @property
    def events(self) -> Events:
        return self.task.events()

    @property
    def summary(self) -> Summary:
        return read_summary(self.task.out / "summary.json")

    @property
    def finalist(self) -> Finalist:
        (finalist,) = self.summary.finalists
        return finalist

    @property
    def report(self) -> str:
        """What of the page is ours."""
        page = (self.task.out / "report.html").read_text(encoding="utf-8")
        return re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)

    @property
    def card(self) -> ModelCard:
        card = read_intact_card(self.task.out / "champion")
        assert card is not None
        return card


def task_of(folder: Path) -> Task:
    """Two students of DML, one of them a finalist; the file has no section `teacher`."""
    task = Task(folder, folder / "out", objective="dml")
    text = "".join(line for line in EXPERIMENT.splitlines(True) if not line.startswith("teacher:"))
    text = text.replace("trials: 6", "trials: 2").replace("seeds: 1", f"seeds: {SEEDS}")
    # One control after the other, so that it can be killed between two of them.
    text = text.replace("{slots: 1}", "{slots: 1, students_per_slot: 1}")
    (folder / "task.yaml").write_text(text)
    (folder / "space.yaml").write_text(
        "name: space\nobjectives: {dml: {}}\ntraining: {lr: {grid_search: [0.01, 0.1]}}\n"
        "search: {algorithm: grid}\nscheduler: {name: fifo}\n"
    )
    return task


def longer_in(events: Events) -> list[str]:
    """The controls of equal compute that were started."""
    started = [event for event in events if event["kind"] == "trial_started"]
    return [event["trial"] for event in started if event["spec"]["training"]["epochs"] == LONGER]


def finished_stages(events: Events) -> Events:
    return [event for event in events if event["kind"] == "stage" and event["status"] == "finished"]


def is_between_two(events: Events) -> bool:
    """Whether one control of equal compute has ended, and another has told an epoch."""
    under_way = running(events)
    longer = set(longer_in(events))
    return bool(longer - set(under_way)) and any(under_way.get(trial) for trial in longer)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    task = task_of(tmp_path_factory.mktemp("without"))
    comparing = killed_when(task, is_between_two)
    weights = [task.out / "students" / trial / "best.safetensors" for trial in ends_of(comparing)]
    kept = {path: path.stat().st_mtime_ns for path in weights}
    done = finish(task.start("--json"))
    assert done.returncode == 0, done.stderr[-4000:]
    return Run(task, done.stdout, done.stderr, comparing, kept)


def killed_when(task: Task, happened: Callable[[Events], bool]) -> Events:
    """The ledger of a run that was killed while this held."""
    process = task.start()
    task.kill_when(process, happened)
    process.communicate()
    return task.events()


def test_what_was_done_when_it_was_killed_is_not_done_again(run: Run) -> None:
    events = run.events
    assert events[: len(run.comparing)] == run.comparing
    started = [event for event in events if event["kind"] == "trial_started"]
    assert len({event["search"] for event in started}) == 1
    assert len({event["trial"] for event in started}) == len(started)
    assert set(epochs_of(events).values()) == {1}
    assert {path: path.stat().st_mtime_ns for path in run.kept} == run.kept
    # Once each: what was found of the data before the kill was found again.
    assert [event["stage"] for event in finished_stages(events)] == STAGES
    assert not {"teacher", "cache"} & {path.name for path in run.task.out.iterdir()}


def test_each_group_was_trained_with_every_seed(run: Run) -> None:
    """Two trials; a finalist, controls with its rate and the file's, and one for as many epochs more."""
    roles = [event["role"] for event in run.events if event["kind"] == "trial_started"]
    assert {role: roles.count(role) for role in roles} == {
        "search": 2,
        "baseline": 2 * SEEDS + SEEDS,
        "finalist": SEEDS,
    }
    assert len(longer_in(run.events)) == SEEDS
    assert {end["status"] for end in ends_of(run.events).values()} == {"completed"}


def test_the_finalist_is_compared_with_cross_entropy_of_the_same_compute(run: Run) -> None:
    finalist, longer = run.finalist, run.finalist.same_compute
    assert longer is not None
    assert (longer.control.objective, longer.control.epochs) == ("ce", LONGER)
    assert sorted(longer.control.trials) == sorted(longer_in(run.events))
    assert longer.control.seeds == finalist.seeds
    assert longer.test_gain.n == SEEDS
    assert longer.test_gain.mean == pytest.approx(finalist.test_mean - longer.control.test_mean)
    assert (finalist.control.epochs, finalist.epochs, finalist.compute_over_ce) == (EPOCHS, EPOCHS, 2.0)
    assert f"same compute ({LONGER} epochs)" in run.report
    students = [one.data for one in run.task.mlflow_runs() if "trial_id" in one.data.tags]
    runs = {data.tags["trial_id"]: data for data in students}
    for trial, own, other in zip(
        finalist.trials, finalist.test_accuracies, longer.control.test_accuracies, strict=True
    ):
        assert runs[trial].tags["same_compute_control"] in longer.control.trials
        assert runs[trial].metrics["gain_same_compute"] == pytest.approx(own - other, abs=1e-5)


def test_one_network_is_shipped_and_its_peer_stands_beside_it(run: Run) -> None:
    summary, card, finalist = run.summary, run.card, run.finalist
    shipped = load_file(summary.champion.exports["safetensors"].path)
    assert {name: tuple(value.shape) for name, value in shipped.items()} == STUDENT
    assert card.architecture is not None
    assert {summary.champion.params, finalist.params, card.architecture.parameters} == {PARAMETERS}
    (profile,) = (stage for stage in finished_stages(run.events) if stage["stage"] == "profile")
    (of_student,) = profile["result"].values()
    assert of_student["params"] == PARAMETERS
    assert card.latency is not None
    assert of_student["latency_ms"] == card.latency.median_ms == summary.champion.latency_ms
    best = [ends_of(run.events)[trial]["best"] for trial in finalist.trials]
    for found, name in (
        (finalist.selection_mean, "selection/accuracy"),
        (finalist.peers_selection_mean, "selection/peer1_accuracy"),
        (finalist.ensemble_selection_mean, "selection/ensemble_accuracy"),
    ):
        assert found == pytest.approx(sum(metrics[name] for metrics in best) / SEEDS)
    assert PEERS in run.report
    assert ENSEMBLE in run.report
    assert not [name for name in card.metrics if "peer" in name or "ensemble" in name]


def test_the_page_has_the_answers_of_the_champion_and_its_control(run: Run) -> None:
    (test,) = (stage for stage in finished_stages(run.events) if stage["stage"] == "test")
    kept = {path.stem for path in (run.task.out / "answers").iterdir()}
    assert kept == {event["trial"] for event in run.events if event["kind"] == "trial_started"} & {
        *test["result"]
    }
    for trial in kept:
        found, told = read_answers(answers_file(run.task.out, trial)).student, test["result"][trial]
        assert found.figures == pytest.approx({name: told[name] for name in found.figures}, abs=1e-5)
    own = read_answers(answers_file(run.task.out, run.summary.champion.trial_id)).student
    assert f"champion, ece {own.figures['ece']:.4f}" in run.report
    assert "Accuracy by class" in run.report


def test_nothing_speaks_of_a_teacher(run: Run) -> None:
    out = run.task.out
    told = {
        "summary.json": (out / "summary.json").read_text(),
        "model_card.json": (out / "champion" / "model_card.json").read_text(),
        "report.html": run.report,
        "console": run.printed + run.console,
    }
    assert [name for name, text in told.items() if "teacher" in text.lower()] == []
    assert json.loads(run.printed)["champion"]["objective"] == "dml"
    runs = run.task.mlflow_runs()
    students = {e["trial"] for e in run.events if e["kind"] == "trial_started"}
    groups = {e["group"] for e in run.events if e["kind"] == "group"}
    assert groups
    assert len(runs) == 1 + len(students) + len(groups)
    (parent,) = (one for one in runs if "trial_id" not in one.data.tags)
    assert not any("teacher" in name for name in (*parent.data.params, *parent.data.tags))
