"""What the teacher says of the selection split, with which each epoch of a student is compared."""

from __future__ import annotations

from typing import Final

from orchestrator.pipeline.context import Run
from trainables.config import KeptTeacher, SelectionAnswers
from trainables.errors import StillhouseError
from trainables.slots.messages import Stage
from trainables.teacher.selection_answers import AnswersRequest, answers_in, are_kept
from trainables.training.train_teacher import TeacherFacts

_UNCOMPARED: Final = "students are not compared with the teacher epoch by epoch (agreement, KL): "


def selection_answers(run: Run, teacher: TeacherFacts, *, needed: bool) -> SelectionAnswers | None:
    """Where they are kept; none where no student is to be trained (`needed`), or where they are not known.

    The stage of the teacher keeps them, and so does an import of logits that has those of the selection
    split. Where they are not there (an earlier version kept none) the teacher is asked again. They are
    figures beside the training, so nothing ends for want of them: it is said.
    """
    if not needed:
        return None
    kept = answers_in(run.out / "teacher", teacher=teacher.fingerprint, data=teacher.split.data_digest)
    if are_kept(kept):
        return kept
    network = run.kept(teacher)
    if network is None:
        run.console.info(
            f"{_UNCOMPARED}its logits of the selection split were not imported; a file that has them too "
            f"brings them: stillhouse cache import FILE {run.loaded.source}"
        )
        return None
    try:
        _found(run, network, kept)
    except StillhouseError as error:
        run.console.info(f"{_UNCOMPARED}{error}")
        return None
    return kept


def _found(run: Run, network: KeptTeacher, kept: SelectionAnswers) -> None:
    run.workers.start_slots_early()
    experiment = run.experiment
    request = AnswersRequest(
        network=network,
        data=experiment.data.labelled,
        batch_size=experiment.training.eval_batch_size,
        threads=experiment.cluster.cpus_per_worker,
        kept=kept,
    )
    run.workers.made(Stage.ANSWERS, request.plain())
