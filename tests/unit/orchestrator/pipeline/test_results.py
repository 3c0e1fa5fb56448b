"""What goes beside the students' runs: their costs once, also after a run of an earlier version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, cast

import pytest

from orchestrator.config.loading import load_experiment
from orchestrator.pipeline.basis.basis import Basis
from orchestrator.pipeline.basis.teacher_figures import teacher_figures
from orchestrator.pipeline.export import _facts
from orchestrator.pipeline.recorded_figures import record_figures
from orchestrator.pipeline.results import RunResults
from orchestrator.pipeline.shipped.further_files import shipped_figures
from orchestrator.records.costs import StudentCosts
from orchestrator.records.events import FiguresAdded, GroupAdded
from orchestrator.records.ledger import Ledger, TrialRecord
from orchestrator.records.picking.champion import choose_champion
from orchestrator.records.picking.picked import Picked
from orchestrator.records.selection import group_trials
from orchestrator.records.student_figures import Finalist, control_students, finalist_of
from orchestrator.tracking.recorder import MlflowRecorder
from trainables.config import Role
from trainables.config.data import SplitFacts
from trainables.config.metrics import RankBy
from trainables.export.model_card import CardFacts
from trainables.training.train_teacher import TeacherFacts

OLD = StudentCosts(params=10.0, size_bytes=40.0, latency_ms=0.1)
NEW = OLD.with_overrides(latency_p95_ms=0.2, latency_device="Intel Xeon")
GAIN = 0.9 - 0.7
Written = tuple[str, dict[str, float], str | None, str | None]
"""A trial, its figures, the device of its latency, and the student that its gain is over."""


class Recorder:
    """Notes what would be written, and keeps it in the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.written: list[Written] = []
        self.parent: list[dict[str, float]] = []
        self.champions: dict[str, bool | None] = {}

    def record_figures(self, trial: str | None, figures: dict[str, float], **named: Any) -> None:
        control, longer = named.pop("controls", (None, None))
        named |= {"control": control, "same_compute_control": longer}
        known = {name: value for name, value in named.items() if value is not None}
        if trial is None:
            self.parent.append(figures)
        else:
            self.written.append((trial, figures, named["latency_device"], named["control"]))
            self.champions[trial] = named["champion"]
        self.ledger.append(FiguresAdded(trial=trial, figures=dict(figures), **known))


def finalists_in(results: RunResults) -> list[Finalist]:
    """Each group of seeds beside those controls that have one of its seeds."""
    finalists = []
    for group in group_trials(results.finalists):
        controls = [
            control_students(control, results.tested, results.costs[control.records[0].trial])
            for control in group_trials(results.controls)
            if set(control.seeds) & set(group.seeds)
        ]
        costs = results.costs[group.records[0].trial]
        if controls:
            finalists.append(finalist_of(group, controls, results.tested, costs))
    return finalists


def recorded(
    results: RunResults, ledger: Ledger, shipped: Mapping[str, float] = MappingProxyType({})
) -> Recorder:
    recorder = Recorder(ledger)
    record_figures(results, finalists_in(results), (), cast(MlflowRecorder, recorder), ledger, shipped)
    return recorder


def written(results: RunResults, ledger: Ledger) -> list[Written]:
    return recorded(results, ledger).written


def outcome_of(finalist: TrialRecord, control: TrialRecord, costs: StudentCosts) -> RunResults:
    return RunResults(
        basis=cast(Basis, None),
        cache=None,
        records=[],
        finalists=[finalist],
        controls=[control],
        picked=Picked(),
        champion=choose_champion(group_trials([finalist]), {finalist.trial: costs.numbers()}, ()),
        costs={finalist.trial: costs, control.trial: costs},
        tested={finalist.trial: {"accuracy": 0.9}, control.trial: {"accuracy": 0.7}},
    )


def test_what_is_written_of_a_champion_is_the_figure_that_ranked_it_and_its_own_answers(
    pair: tuple[TrialRecord, TrialRecord], tmp_path: Path
) -> None:
    ranked = [
        record.model_copy(
            update={
                "spec": {**record.spec, "rank_by": "knn_accuracy"},
                "best": {**record.best, "selection/knn_accuracy": knn},
            }
        )
        for record, knn in zip(pair, (0.75, 0.65), strict=True)
    ]
    finalist, control = ranked
    results = replace(
        outcome_of(finalist, control, NEW),
        tested={
            finalist.trial: {"accuracy": 0.1, "knn_accuracy": 0.7},
            control.trial: {"accuracy": 0.9, "knn_accuracy": 0.6},
        },
    )
    assert results.champion_metrics() == {
        "selection_knn_accuracy_mean": 0.75,
        "test_knn_accuracy_mean": 0.7,
        "selection_knn_accuracy": 0.75,
        "test_knn_accuracy": 0.7,
        "selection_accuracy_mean": 0.9,
        "test_accuracy_mean": 0.1,
        "selection_accuracy": 0.9,
        "test_accuracy": 0.1,
    }
    ledger = Ledger(tmp_path)
    recorder = recorded(results, ledger)
    ledger.close()
    (own, _) = (figures for _, figures, *_ in recorder.written)
    assert (own["test_knn_acc"], own["test_acc"]) == (0.7, 0.1)
    assert own["gain_over_control"] == pytest.approx(0.1)
    (parent,) = recorder.parent
    assert (parent["champion_knn_acc"], parent["champion_test_knn_acc"]) == (0.75, 0.7)
    assert "champion_acc" not in parent


def test_figures_of_exported_files_stand_with_the_champion_and_are_written_once(
    pair: tuple[TrialRecord, TrialRecord], tmp_path: Path
) -> None:
    results, ledger = outcome_of(*pair, NEW), Ledger(tmp_path)
    shipped = {"onnx_latency_ms": 0.07, "int8_accuracy": 0.88}
    recorder = recorded(results, ledger, shipped)
    by_trial = {trial: figures for trial, figures, *_ in recorder.written}
    assert by_trial["f"].items() >= shipped.items()
    assert not by_trial["c"].keys() & shipped.keys()
    (parent,) = recorder.parent
    assert parent["champion_onnx_latency_ms"] == 0.07
    again = recorded(results, ledger, shipped)
    ledger.close()
    assert (again.written, again.parent) == ([], [])


def test_what_exported_files_cost_has_short_names() -> None:
    times = {"batch_1_median_ms": 0.1, "batch_1_p95_ms": 0.2, "batch_64_median_ms": 3.0}
    latency = {**times, "batch_64_p95_ms": 4.0, "device": "a CPU", "threads": 1, "runtime": "onnxruntime 1"}
    files = {
        "safetensors": {"path": "student.safetensors", "max_abs_difference": 0.0},
        "onnx": {"path": "student.onnx", "max_abs_difference": 1e-6, "latency": latency},
        "onnx_int8": {"path": "student_int8.onnx", "max_abs_difference": 0.3, "accuracy": 0.91},
    }
    assert shipped_figures({"files": files}) == {
        "onnx_latency_ms": 0.1,
        "onnx_latency_p95_ms": 0.2,
        "onnx_latency_64_ms": 3.0,
        "onnx_latency_64_p95_ms": 4.0,
        "int8_accuracy": 0.91,
    }
    assert shipped_figures({"files": {"onnx": {"path": "of an earlier version"}}}) == {}


@pytest.fixture
def pair(make_record: Callable[..., TrialRecord]) -> tuple[TrialRecord, TrialRecord]:
    """A finalist and its control, with the same seed."""
    spec = {"seed": 1, "student": {"width": 4}, "training": {"epochs": 5}}
    finalist = make_record("f", 0.9, role=Role.FINALIST, repeats="t")
    control = make_record("c", 0.8, role=Role.BASELINE, objective="ce", repeats="ce-1")
    return finalist.model_copy(update={"spec": spec}), control.model_copy(update={"spec": spec})


SPLIT = SplitFacts(
    data_digest="d",
    ids_digest="i",
    n_train=9,
    classes=("a", "b"),
    mean=(0.5,),
    std=(0.5,),
    input_shape=(1, 8, 8),
)
TEACHER = TeacherFacts(
    weights="t.safetensors", fingerprint="f" * 64, params=9, selection_accuracy=0.9, split=SPLIT
)


@pytest.mark.parametrize(
    ("basis", "named"),
    [
        (Basis(SPLIT), {}),
        (Basis(SPLIT, TEACHER), {}),  # compared with one that nobody heard
        (Basis(SPLIT, TEACHER, TEACHER), {"teacher": "f" * 64, "cache": "none"}),
    ],
)
def test_registry_and_card_name_the_teacher_that_students_heard(
    pair: tuple[TrialRecord, TrialRecord], basis: Basis, named: dict[str, str]
) -> None:
    lineage = replace(outcome_of(*pair, NEW), basis=basis).lineage("search")
    assert {name: lineage[name] for name in ("teacher", "cache") if name in lineage} == named
    run: Any = SimpleNamespace(start=None, experiment=load_experiment("digits").config)
    card = CardFacts.from_plain(_facts(run, pair[0], basis, cache=None, metrics={}))
    assert card.lineage.teacher == named.get("teacher")
    assert ("teacher" in card.lineage.plain()) == bool(named)


def test_figures_are_told_of_a_teacher_that_there_is() -> None:
    run: Any = SimpleNamespace(shares=())
    assert teacher_figures(run, None, {}, {}, RankBy.ACCURACY) is None
    tested = {"teacher": {"accuracy": 0.8}}
    found = teacher_figures(run, TEACHER, tested, {"teacher": NEW}, RankBy.ACCURACY)
    assert found is not None
    assert (found.params, found.selection_accuracy, found.test_accuracy) == (9, 0.9, 0.8)
    assert (found.latency_ms, found.latency_device, found.members) == (0.1, "Intel Xeon", ())


def test_costs_are_written_once_with_the_device(
    pair: tuple[TrialRecord, TrialRecord], tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path)
    own, other = written(outcome_of(*pair, NEW), ledger)
    placed = {"rank": 1, "pareto": 1, "within_budget": 1.0}
    figures = {**NEW.numbers(), "test_acc": 0.9, **placed, "gain_over_control": GAIN}
    assert own[:3] == ("f", figures, "Intel Xeon")
    assert other[:3] == ("c", {**NEW.numbers(), "test_acc": 0.7}, "Intel Xeon")
    assert written(outcome_of(*pair, NEW), Ledger(tmp_path)) == []


def test_a_gain_in_mlflow_names_the_student_with_the_same_seed_that_it_is_over(
    pair: tuple[TrialRecord, TrialRecord], tmp_path: Path
) -> None:
    own, other = written(outcome_of(*pair, NEW), Ledger(tmp_path))
    assert own[1]["gain_over_control"] == GAIN
    assert (own[3], other[3]) == ("c", None)
    assert "gain_over_control" not in other[1]
    finalist, control = pair
    alone = control.model_copy(update={"spec": {**control.spec, "seed": 2}})
    (without, _) = written(outcome_of(finalist, alone, NEW), Ledger(tmp_path / "alone"))
    assert "gain_over_control" not in without[1]
    assert without[3] is None


def test_what_an_earlier_version_wrote_of_a_control_is_not_written_again(
    pair: tuple[TrialRecord, TrialRecord], tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(FiguresAdded(trial="c", figures={**OLD.numbers(), "test_acc": 0.7}))
    assert [told[0] for told in written(outcome_of(*pair, OLD), ledger)] == ["f"]


def test_the_champion_is_marked_and_its_figures_stand_on_the_parent(
    pair: tuple[TrialRecord, TrialRecord], tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path)
    found = recorded(outcome_of(*pair, NEW), ledger)
    assert found.champions == {"f": True, "c": None}
    (parent,) = found.parent
    assert parent == {
        "champion_acc": 0.9,
        "champion_test_acc": 0.9,
        "champion_gain_over_control": GAIN,
        **{f"champion_{name}": value for name, value in NEW.numbers().items()},
    }
    assert recorded(outcome_of(*pair, NEW), Ledger(tmp_path)).parent == []


def test_a_champion_that_is_one_no_more_loses_its_mark(
    pair: tuple[TrialRecord, TrialRecord], tmp_path: Path
) -> None:
    finalist, control = pair
    ledger = Ledger(tmp_path)
    recorded(outcome_of(finalist, control, NEW), ledger)
    other = finalist.model_copy(update={"trial": "g"})
    results = outcome_of(finalist, control, NEW)
    second = replace(
        results,
        finalists=[finalist, other],
        champion=choose_champion(group_trials([other]), {"g": NEW.numbers()}, ()),
        costs={**results.costs, "g": NEW},
        tested={**results.tested, "g": {"accuracy": 0.8}},
    )
    assert recorded(second, ledger).champions == {"f": False, "g": True}


def test_finalists_and_controls_are_told_as_groups_of_seeds_once(
    pair: tuple[TrialRecord, TrialRecord], tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path)
    recorded(outcome_of(*pair, NEW), ledger)
    finalist, control = ledger.events_of(GroupAdded)
    assert (finalist.group, finalist.role, finalist.trials) == ("t-seeds", Role.FINALIST, ("f",))
    assert (control.group, control.role, control.trials) == ("ce-1-seeds", Role.BASELINE, ("c",))
    assert (finalist.control, finalist.champion, control.control) == ("ce-1-seeds", True, None)
    assert finalist.figures == {
        "acc": 0.9,
        "seeds": 1,
        "test_acc": 0.9,
        **NEW.numbers(),
        "rank": 1,
        "pareto": 1,
        "within_budget": 1.0,
        "gain_over_control": GAIN,
    }
    recorded(outcome_of(*pair, NEW), Ledger(tmp_path))
    assert len(Ledger(tmp_path).events_of(GroupAdded)) == 2


def test_a_group_is_told_again_when_another_one_won(
    pair: tuple[TrialRecord, TrialRecord], tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path)
    recorded(outcome_of(*pair, NEW), ledger)
    results = outcome_of(*pair, NEW.with_overrides(latency_ms=0.05))
    recorded(results, ledger)
    told = [event.figures["latency_ms"] for event in ledger.events_of(GroupAdded) if event.group == "t-seeds"]
    assert told == [0.1, 0.05]
