"""A student that a slot trains, alone or in a pack: its course, and what is told and kept of it."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from trainables.checkpoint_header import preprocessing_metadata
from trainables.config import TrainingPrecision
from trainables.slots.job_channel import JobChannel
from trainables.slots.mask_warning import mask_warning
from trainables.slots.messages import End, Message, TrainJob
from trainables.slots.warm_state import WarmState
from trainables.training.course import Course, TrainingResult
from trainables.training.loop import train
from trainables.training.precision import KEPT, Chosen
from trainables.training.progress.checkpoint_paths import kept_state
from trainables.training.progress.checkpoints import CheckpointFolder
from trainables.training.quantisation_aware import quantisation_aware
from trainables.training.ranks import Team

# A trial tells of an epoch before it keeps the epoch's state.
ORIGIN_WAIT_S: Final = 60.0
ORIGIN_LOOK_S: Final = 0.05

log = logging.getLogger(__name__)


class StudentJob:
    """One job of training: a message an epoch, the last one with the kept weights."""

    def __init__(self, job: TrainJob, warm: WarmState, channel: JobChannel, *, packed: bool = False) -> None:
        """Find its files, build its student, and count what an epoch of it computes.

        `packed` says that it is trained in a pack.

        Raises:
            StillhouseError: the student cannot be trained.
        """
        self.job, self._warm, self._channel = job, warm, channel
        self._packed = packed
        self.files = _files(job, channel)
        self.course, self._said = _course(job, warm, channel.team)
        self._last: dict[str, Any] = {}

    @property
    def heard(self) -> int:
        """Epochs that need not be told: those of an earlier attempt, or of the trial that it forked from."""
        fork = self.job.trial.fork
        return max(self._channel.heard, fork.epoch if fork else 0)

    def tell(self, epoch: int, metrics: dict[str, float]) -> None:
        """Tell of an epoch; the last one is told with the end."""
        message = Message(epoch=epoch, metrics=metrics, precision=self._precision())
        if warning := mask_warning(self.job.trial, message):
            log.warning(warning)
        # The last epoch travels with the end, so that nobody can see a finished trial without its weights.
        if epoch < self.job.trial.training.epochs:
            self._channel.send(message)
        else:
            self._last = {"epoch": epoch, "metrics": metrics, "precision": message.precision}

    def end(self, result: TrainingResult) -> None:
        """Tell the end, and keep the weights of a course that came to its own end.

        Raises:
            StorageError: they cannot be written.
        """
        if result.stopped:
            self._channel.send(Message(epoch=result.epochs, end=End.STOPPED))
            return
        spec, data = self.job.trial, self._warm.data(self.job.workbench.data)
        metadata = {"trial_id": spec.trial_id, "student": spec.student.model_dump_json()}
        metadata |= self._said | preprocessing_metadata(data.normalisation, data.classes)
        path = self.files.save_best(self.course.model, metadata)
        end = Message(
            **self._last,
            end=End.COMPLETED,
            best_epoch=result.best_epoch,
            best=result.best,
            checkpoint=str(path),
        )
        # An end that nobody heard is told by the next attempt, which starts from the state.
        if self._channel.send(end):
            self.files.drop_state()

    def _precision(self) -> str:
        """What the course is trained in: a state that it went on from counts more than this device.

        It says too whether that is in a pack, where sums are rounded in another way than alone.
        """
        own = Chosen(self.course.resolved_precision(), self.course.precision_by)
        if self.files.went_on_in not in (None, own.precision.value):
            own = Chosen(TrainingPrecision(self.files.went_on_in), KEPT)
        if self._packed:
            return f"{own}, in a pack"
        return f"{own}, begun in a pack" if self.files.began_packed else str(own)


def train_job(job: TrainJob, warm: WarmState, channel: JobChannel) -> None:
    """Train one student alone.

    Every rank of the team trains; rank 0 alone tells and keeps.
    """
    student = StudentJob(job, warm, channel)
    result = train(
        student.course,
        warm.workbench(job.workbench),
        on_epoch=student.tell,
        should_stop=channel.should_stop,
        files=student.files,
        heard=student.heard,
    )
    if channel.team.rank == 0:
        student.end(result)


def _course(job: TrainJob, warm: WarmState, team: Team) -> tuple[Course, dict[str, str]]:
    """How the student is trained, and what the file of its weights has to say of it."""
    course = replace(warm.course(job.trial, job.workbench), team=team)
    if job.fake_quantised is None:
        return _with_costs(course, job, warm), {}
    return quantisation_aware(course, Path(job.fake_quantised), warm.workbench(job.workbench))


def _with_costs(course: Course, job: TrainJob, warm: WarmState) -> Course:
    """The course with what rank 0 tells of it in each epoch; all ranks count, so that all fail alike."""
    computed = warm.compute(course, job.trial, job.workbench)
    if course.team.rank > 0:  # the others tell nothing, so they need not measure
        return course
    costs = warm.costs(job.trial.student, job.workbench, job.costs)
    return replace(course, costs={**costs, **computed})


def _files(job: TrainJob, channel: JobChannel) -> CheckpointFolder:
    """The trial's files; those of a fork begin with another trial's state, which may still be written."""
    spec, folder = job.trial, Path(job.workbench.checkpoints)
    origin = kept_state(folder / spec.fork.trial_id, spec.fork.epoch) if spec.fork else None
    deadline = time.monotonic() + ORIGIN_WAIT_S
    while origin and not origin.exists() and time.monotonic() < deadline and not channel.should_stop():
        time.sleep(ORIGIN_LOOK_S)
    return CheckpointFolder(
        folder / spec.trial_id, spec_digest=spec.digest(), keep_all=spec.keep_states, origin=origin
    )
