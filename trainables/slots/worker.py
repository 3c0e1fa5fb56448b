"""A slot's side: the Ray Train loop that takes jobs from the broker and does them at the workbench."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import ray
import torch
from ray.train.torch import get_device

from trainables.checkpoint_header import preprocessing_metadata
from trainables.config import DataConfig, ModelConfig, Split, TrainingPrecision
from trainables.data import load_test
from trainables.errors import StillhouseError, StorageError, TrialFailed, UnreadableData
from trainables.evaluation.answers_file import write_answers
from trainables.evaluation.disagreement import kept_answers
from trainables.evaluation.features_worth import NoFeatures
from trainables.evaluation.metrics import answer_figures
from trainables.evaluation.profiling import profile_student
from trainables.slots.agreed_measurements import Agree
from trainables.slots.broker import CLOSED
from trainables.slots.job_channel import JobChannel
from trainables.slots.mask_warning import mask_warning
from trainables.slots.messages import JOB_KINDS, End, EvaluateJob, Lease, Message, ProfileJob, TrainJob
from trainables.slots.stage_jobs import do_stage
from trainables.slots.warm_state import WarmState
from trainables.teacher.cache_request import stated_features
from trainables.teacher.loading import load_teacher
from trainables.training.checkpoint_paths import kept_state
from trainables.training.checkpoints import CheckpointFolder
from trainables.training.course import Course
from trainables.training.loop import train
from trainables.training.precision import KEPT, Chosen
from trainables.training.quantisation_aware import quantisation_aware
from trainables.training.ranks import SOLO, Team, lost_a_rank, team_here

TAKE_WAIT_S = 5.0
# A trial tells of an epoch before it keeps the epoch's state.
ORIGIN_WAIT_S = 60.0
ORIGIN_LOOK_S = 0.05
WATCH_WAIT_S = 30.0
EVALUATED_TOGETHER = 512

log = logging.getLogger(__name__)


def train_job(job: TrainJob, warm: WarmState, channel: JobChannel) -> None:
    """Train one student; a message an epoch, the last one with the kept weights.

    Every rank of the team trains; rank 0 alone tells and keeps.
    """
    spec = job.trial
    files = _files(job, channel)
    course, said = _course(job, warm, channel.team)
    last: dict[str, Any] = {}

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        message = Message(epoch=epoch, metrics=metrics, precision=_precision(course, files))
        if warning := mask_warning(spec, message):
            log.warning(warning)
        # The last epoch travels with the end, so that nobody can see a finished trial without its weights.
        if epoch < spec.training.epochs:
            channel.send(message)
        else:
            last.update(epoch=epoch, metrics=metrics, precision=message.precision)

    result = train(
        course,
        warm.workbench(job.workbench),
        on_epoch=on_epoch,
        should_stop=channel.should_stop,
        files=files,
        heard=max(channel.heard, spec.fork.epoch if spec.fork else 0),
    )
    if channel.team.rank > 0:
        return
    if result.stopped:
        channel.send(Message(epoch=result.epochs, end=End.STOPPED))
        return
    data = warm.data(job.workbench.data)
    metadata = {"trial_id": spec.trial_id, "student": spec.student.model_dump_json()}
    metadata |= said | preprocessing_metadata(data.normalisation, data.classes)
    path = files.save_best(course.model, metadata)
    end = Message(
        **last, end=End.COMPLETED, best_epoch=result.best_epoch, best=result.best, checkpoint=str(path)
    )
    if channel.send(end):  # an end that nobody heard is told by the next attempt, which starts from the state
        files.drop_state()


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


def _precision(course: Course, files: CheckpointFolder) -> str:
    """What the course is trained in: a state that it went on from counts more than this device."""
    own = Chosen(course.resolved_precision(), course.precision_by)
    if files.went_on_in in (None, own.precision.value):
        return str(own)
    return str(Chosen(TrainingPrecision(files.went_on_in), KEPT))


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


def evaluate_job(job: EvaluateJob, warm: WarmState, channel: JobChannel) -> None:
    """Evaluate kept weights; the test split is loaded here and nowhere else.

    The figures are those of `evaluate` and of `answer_figures`, and the one that ranks students; with a
    teacher, `agreement` is the fraction of images that both give the same class.

    Raises:
        StorageError: the file of its answers cannot be written.
    """
    workbench = warm.workbench(job.workbench)
    data = workbench.data
    model = load_teacher(job.network, data).to(workbench.device)
    splits = {
        Split.TRAIN: lambda: data.train,
        Split.SELECTION: lambda: data.selection,
        Split.TEST: lambda: load_test(job.workbench.data, data.classes),
    }
    split = splits[job.split]()
    figures = workbench.evaluate(model, split, batch_size=EVALUATED_TOGETHER)
    stated = stated_features(job.network)
    with contextlib.suppress(NoFeatures):  # of a teacher: a student was ranked by it in each epoch
        figures |= workbench.features_worth(
            model, job.rank_by, split, batch_size=EVALUATED_TOGETHER, stated=stated
        )
    own = workbench.answers(model, split, batch_size=EVALUATED_TOGETHER)
    figures |= answer_figures(own.answers_N, split.labels)
    taught = warm.teacher_answers(job.teacher, job.workbench, split) if job.teacher else None
    if taught is not None:
        figures["agreement"] = float((own.answers_N == taught.answers_N).double().mean())
    if job.answers is not None:  # before the figures are told: a run that has them has the file too
        write_answers(Path(job.answers), kept_answers(own, taught, split, data.classes))
    channel.send(Message(metrics={f"{job.split}/{n}": v for n, v in figures.items()}, end=End.COMPLETED))


def profile_job(job: ProfileJob, warm: WarmState, channel: JobChannel) -> None:
    """Measure an untrained copy: the figures depend on the architecture alone."""
    workbench = warm.workbench(job.workbench)
    if isinstance(job.student, ModelConfig):
        model = warm.build(job.student, job.workbench)
    else:
        model = load_teacher(job.student, workbench.data)
    device = workbench.device
    figures = profile_student(model.to(device), input_shape=workbench.input_shape, device=device)
    numbers = {name: float(value) for name, value in vars(figures).items() if isinstance(value, int | float)}
    channel.send(Message(metrics=numbers, device=figures.latency_device, end=End.COMPLETED))


HANDLERS: Final[Mapping[str, Callable[[Any, WarmState, JobChannel], None]]] = MappingProxyType(
    {"train": train_job, "evaluate": evaluate_job, "profile": profile_job, "stage": do_stage}
)


def agreement(broker: Any) -> Agree:
    """Makes a choice that one slot measured the choice of all slots of the broker."""

    def agree(key: str, find: Callable[[], str]) -> str:
        known: dict[str, str] = ray.get(broker.agreements.remote())
        agreed: str = known[key] if key in known else ray.get(broker.agree.remote(key, find()))
        return agreed

    return agree


def slot_loop(config: Mapping[str, Any]) -> None:
    """Ray Train's loop function: take, do, report, until the broker closes.

    Rank 0 speaks with the broker; what it was given it tells the other ranks of the slot.
    """
    torch.set_num_threads(config["threads"])
    broker, team = config["broker"], team_here()
    warm = WarmState(get_device(), agree=agreement(broker))
    try:
        warm.data(DataConfig.from_plain(config["data"]))
    except UnreadableData as error:  # started again, it would find the same
        ray.get(broker.fail.remote(str(error)))
        return
    while True:
        answer = None
        if team.rank == 0:
            answer = ray.get(broker.take.remote(config["slot"], os.getpid(), TAKE_WAIT_S))
        answer = team.tell(answer)
        if answer == CLOSED:
            return
        if answer is not None:
            do_lease(Lease.from_plain(answer), warm, broker, team)


def do_lease(lease: Lease, warm: WarmState, broker: Any, team: Team = SOLO) -> None:
    """Do one job; an exception ends that job as failed with its reason, and the slot goes on.

    Raises:
        Exception: whatever left the ranks of a team in different places; Ray Train starts them all again.
    """
    job = JOB_KINDS[lease.job["kind"]].from_plain(lease.job)
    together = team.size > 1 and isinstance(job, TrainJob)
    if team.rank > 0 and not together:
        return
    with _cancellation(job.job_id, lease.attempt, broker, listens=team.rank == 0) as cancelled:

        def send(message: Message) -> bool:
            wanted: bool = ray.get(broker.report.remote(job.job_id, lease.attempt, message))
            if not wanted:
                cancelled.set()
            return wanted

        try:
            HANDLERS[job.kind](job, warm, JobChannel(send, cancelled.is_set, lease.heard, team))
        except TrialFailed as error:  # of figures that all ranks share, so all ranks end here
            send(Message(end=End.FAILED, reason=str(error)))
        except Exception as error:  # a user's model may raise anything; the search goes on
            if together and lost_a_rank(error):
                raise  # the job is none the worse: it goes on when the slot is back
            log.exception("%s failed", job.job_id)
            hopeless = isinstance(error, StorageError | UnreadableData)  # other trials have the same data
            send(Message(end=End.FAILED, reason=_reason(error), hopeless=hopeless))
            let_go(error)
            if together:
                raise


def let_go(error: Exception) -> None:
    """Free what a failed job still holds: the frames of its error keep student, optimiser and batch."""
    traceback.clear_frames(error.__traceback__)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # so that a student of another shape finds room


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, StillhouseError) else f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def _cancellation(
    job_id: str, attempt: int, broker: Any, *, listens: bool = True
) -> Iterator[threading.Event]:
    """An event that is set as soon as the broker wants the job dropped; rank 0 listens for all ranks."""
    cancelled, over = threading.Event(), threading.Event()

    def listen() -> None:
        while not over.is_set() and not cancelled.is_set():
            if ray.get(broker.watch.remote(job_id, attempt, WATCH_WAIT_S)):
                cancelled.set()

    if listens:
        threading.Thread(target=listen, name=f"cancel-{job_id}", daemon=True).start()
    try:
        yield cancelled
    finally:
        over.set()  # the listener ends with its next answer: the job has ended, so that comes at once
