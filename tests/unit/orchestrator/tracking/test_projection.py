"""What MLflow's runs are told of a student beside its curves, and of what a teacher is prepared with."""

from __future__ import annotations

from orchestrator.records.events import (
    EpochEnded,
    FiguresAdded,
    GroupAdded,
    StageEpoch,
    StageEvent,
    TeacherPrepared,
    TrialEnded,
    TrialStarted,
)
from orchestrator.tracking.changes import Point, State
from orchestrator.tracking.names import TAG_CHARACTERS
from orchestrator.tracking.projection import Projection
from trainables.config import Role

START = TrialStarted(
    trial="t", role=Role.SEARCH, search="s", objective="kd", parameters={}, spec={"seed": 1}, time_ms=1
)


def epoch(number: int, precision: str | None) -> EpochEnded:
    return EpochEnded(trial="t", epoch=number, metrics={}, precision=precision, time_ms=number)


def test_a_run_says_what_its_student_is_trained_in_once() -> None:
    projection = Projection()
    (first,) = projection.fold([START, epoch(1, "bf16 (table 1)")])
    assert first.tags["precision"] == "bf16 (table 1)"
    assert all("precision" not in change.tags for change in projection.fold([epoch(2, "bf16 (table 1)")]))
    (changed,) = projection.fold([epoch(3, "bf16 (as its training began)")])
    assert changed.tags["precision"] == "bf16 (as its training began)"


def test_a_ledger_of_an_earlier_version_gives_no_such_tag() -> None:
    (change,) = Projection().fold([START, epoch(1, None)])
    assert "precision" not in change.tags


def prepared(epoch: int, *, key: str = "k", loss: float = 0.5) -> StageEpoch:
    metrics = {"train/loss": loss}
    return StageEpoch(stage="preparation ss_head", key=key, epoch=epoch, metrics=metrics, time_ms=10 * epoch)


def test_what_a_stage_trains_has_a_curve_of_its_own_at_the_parent() -> None:
    (change,) = Projection().fold([prepared(1, loss=0.75), prepared(2, loss=0.25)])
    assert change.trial is None
    name = "preparation ss_head/train/loss"
    assert change.points == [Point(name, 0.75, 10, 1), Point(name, 0.25, 20, 2)]


def test_an_epoch_that_a_stage_tells_again_is_in_its_curve_once() -> None:
    projection = Projection()
    projection.fold([prepared(1), prepared(2)])
    (change,) = projection.fold([prepared(2, loss=0.125), prepared(3)])
    assert [point.step for point in change.points] == [3]
    (other,) = projection.fold([prepared(1, key="of another recipe")])
    assert [point.step for point in other.points] == [1]


def test_the_parent_says_what_the_teacher_is_prepared_with_now() -> None:
    projection = Projection()
    first = TeacherPrepared(part="ss_head", sha256="3f2a", recipe={"lr": 0.05, "epochs": 60})
    (change,) = projection.fold([first])
    assert (change.trial, change.params) == (None, {})
    assert change.tags == {"teacher.ss_head": "3f2a", "teacher.ss_head.recipe": '{"epochs": 60, "lr": 0.05}'}
    (change,) = projection.fold([first.model_copy(update={"sha256": "77aa"})])
    assert change.tags["teacher.ss_head"] == "77aa"


def test_a_recipe_fits_into_a_tag() -> None:
    long = TeacherPrepared(part="branches", sha256="3f2a", recipe={"freeze": ["layer"] * 5000})
    (change,) = Projection().fold([long])
    assert len(change.tags["teacher.branches.recipe"]) == TAG_CHARACTERS


SEED = TrialStarted(
    trial="t-seed1",
    role=Role.FINALIST,
    search="s",
    objective="kd",
    parameters={},
    spec={"seed": 1},
    repeats="t",
    time_ms=5,
)
GROUP = GroupAdded(
    group="t-seeds",
    role=Role.FINALIST,
    search="s",
    objective="kd",
    parameters={"temperature": 4.0},
    trials=("t-seed1",),
    figures={"acc": 0.912345678, "seeds": 1},
    champion=True,
    time_ms=9,
)


def test_a_group_has_a_finished_run_above_those_of_its_seeds() -> None:
    projection = Projection()
    seed, group = projection.fold([SEED, GROUP])
    assert (seed.trial, seed.group) == ("t-seed1", "t-seeds")
    assert (group.trial, group.group) == ("t-seeds", None)
    assert group.state == State("FINISHED", 9)
    assert group.params == {"temperature": "4.0"}
    assert [point[:2] for point in group.points] == [("acc", 0.91235), ("seeds", 1.0)]
    assert group.tags["kind"] == "group"
    assert group.tags["role"] == "finalist"
    assert group.tags["mlflow.runName"] == "★ t-seeds"
    assert projection.start_of("t-seeds").name == "t-seeds"


def test_a_seed_that_starts_again_stays_below_its_group() -> None:
    projection = Projection()
    projection.fold([SEED, GROUP])
    (again,) = projection.fold([SEED])
    assert again.group == "t-seeds"


def test_a_group_does_not_change_how_later_trials_are_numbered() -> None:
    projection = Projection()
    projection.fold([START, GROUP, START.model_copy(update={"trial": "u"})])
    assert projection.start_of("u").name == "0002 kd"


SPLIT = {"data_digest": "271377f7" * 8, "ids_digest": "11b7", "n_train": 1079, "classes": ["0", "1"]}
IMAGES = StageEvent(
    stage="teacher",
    key="k",
    status="finished",
    result={"split": SPLIT, "selection_accuracy": 0.9972144, "params": 174_970},
    time_ms=3,
)


def test_the_parent_says_what_it_learned_from_and_what_the_teacher_can_do() -> None:
    cache = {
        "uri": "cache/9622",
        "manifest": "3b08" * 16,
        "identity": {"teacher": "cd9a", "dtype": "fp16"},
        "rows": 17_264,
        "bytes": 764_076,
    }
    projection = Projection()
    (parent,) = projection.fold([IMAGES, StageEvent(stage="cache", key="k", status="finished", result=cache)])
    images, answers = parent.inputs
    assert (images.name, images.digest, images.context) == (
        "images",
        ("271377f7" * 8)[:36],
        "training and selection",
    )
    assert images.profile == {"n_train": 1079, "classes": 2}
    assert (answers.source, answers.digest) == ("cache/9622", ("3b08" * 16)[:36])
    assert answers.profile == {"rows": 17_264, "bytes": 764_076, "teacher": "cd9a", "dtype": "fp16"}
    assert [point[:2] for point in parent.points] == [("teacher_acc", 0.99721), ("teacher_params", 174_970.0)]
    assert projection.data == images


def ended(status: str) -> TrialEnded:
    return TrialEnded(
        trial="t",
        status=status,
        epochs=3,
        final={},
        reason=None,
        best_epoch=2,
        best={"selection/accuracy": 0.5},
        checkpoint=None,
        time_ms=7,
    )


def test_a_finished_student_has_a_model_with_its_figures_also_those_told_later() -> None:
    projection = Projection()
    (done,) = projection.fold([START, ended("completed")])
    assert done.has_model
    assert ("acc", 0.5, 7, 0) in done.figures
    assert done.points == []
    (later,) = projection.fold([FiguresAdded(trial="t", figures={"params": 7}, time_ms=8)])
    assert (later.has_model, later.figures) == (True, [Point("params", 7.0, 8, 0)])


def test_a_pruned_student_has_no_model() -> None:
    (pruned,) = Projection().fold([START, ended("pruned")])
    assert not pruned.has_model
    assert ("acc", 0.5, 7, 0) in pruned.figures


def test_students_are_ranked_as_soon_as_one_has_a_rank() -> None:
    projection = Projection()
    projection.fold([START, FiguresAdded(trial="t", figures={"params": 7})])
    assert not projection.is_ranked
    projection.fold([FiguresAdded(trial="t", figures={"rank": 1})])
    assert projection.is_ranked
