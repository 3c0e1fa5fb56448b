"""A teacher that students did not learn from, but may be compared with: nothing is made for that."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.pipeline.brought_weights import with_pinned_teacher
from orchestrator.pipeline.context import Run
from orchestrator.pipeline.teacher_stage import is_still_there, known_teacher, recorded_teacher
from orchestrator.records.costs import TEACHER
from orchestrator.records.events import StageEvent
from orchestrator.records.ledger import TrialRecord
from trainables.config import TrialSpec
from trainables.errors import ConfigError, StillhouseError
from trainables.training.train_teacher import TeacherFacts


def made_before(run: Run) -> TeacherFacts | None:
    """The file's teacher as an earlier run left it in the ledger; none where none has made it.

    Where it cannot be known again (MLflow, which has its weights, is away) this is told, and it is none.
    """
    finished = (event.stage for event in run.ledger.events_of(StageEvent) if event.status == "finished")
    if not run.experiment.has_teacher or TEACHER not in {stage.partition(" ")[0] for stage in finished}:
        return None
    try:
        return recorded_teacher(replace(run, loaded=with_pinned_teacher(run.loaded)))
    except StillhouseError as error:
        run.console.info(f"students are not compared with the teacher of the file: {error}")
        return None


def teacher_beside(run: Run, record: TrialRecord, *, needs_network: bool) -> TeacherFacts | None:
    """The teacher that a student is evaluated beside; none where it learned from none, and none is known.

    Raises:
        ConfigError: it learned from one that is not made yet, or there is no network to attack.
    """
    if needs_network:
        _require_network(run)
    brings_weights = any(each.checkpoint is not None for each in run.experiment.each_teacher)
    is_known = run.hears_teacher or brings_weights
    teacher = known_teacher(run) if is_known else made_before(run)
    if teacher is not None and (is_known or is_still_there(run, teacher)):
        return teacher
    if needs_network or TrialSpec.from_plain(record.spec).objective.hears_teacher:
        what = "" if run.hears_teacher else ", with a --space that has an objective with a teacher"
        raise ConfigError(
            f"{run.out} has no teacher of this {run.loaded.source}: it was not made yet, or the file was "
            f"changed since; run it: stillhouse run {run.loaded.source}{what}"
        )
    run.console.info(
        f"student {record.trial} learned from no teacher, and none is here: it is evaluated alone"
    )
    return None


def _require_network(run: Run) -> None:
    name, config = run.experiment.name, run.experiment
    if not config.has_teacher:
        raise ConfigError(
            f"{name} has no teacher, and --faithfulness attacks teacher and student together; leave it "
            "out, or give the file the teacher that the student is to be compared with"
        )
    if config.teacher.imported:
        raise ConfigError(
            f"the teacher of {name} has no network, only logits that were imported, and "
            "--faithfulness asks it about altered images; leave it out, or give the experiment the "
            "teacher's `model` and `checkpoint`"
        )
    if any(teacher.is_onnx for teacher in config.each_teacher):
        raise ConfigError(
            f"the teacher of {name} is an ONNX file, which gives no gradient, and "
            "--faithfulness attacks both networks along theirs; leave it out, or give the teacher as a "
            "`model` of PyTorch"
        )
