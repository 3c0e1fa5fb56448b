"""What MLflow's runs are told of a student beside its curves, and of what a teacher is prepared with."""

from __future__ import annotations

from orchestrator.records.events import EpochEnded, StageEpoch, TeacherPrepared, TrialStarted
from orchestrator.tracking.names import TAG_CHARACTERS
from orchestrator.tracking.projection import Point, Projection
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
