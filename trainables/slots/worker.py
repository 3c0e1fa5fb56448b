"""A slot's side: the Ray Train loop that takes jobs from the broker and does them at the workbench."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import ray
import torch
from ray.train.torch import get_device

from trainables.config import DataConfig, ModelConfig, Split
from trainables.data import load_test
from trainables.errors import TrialFailed, UnreadableData
from trainables.evaluation.answers_file import write_answers
from trainables.evaluation.disagreement import kept_answers
from trainables.evaluation.features_worth import NoFeatures
from trainables.evaluation.metrics import answer_figures
from trainables.evaluation.profiling import profile_student
from trainables.slots.agreed_measurements import Agree
from trainables.slots.broker import CLOSED
from trainables.slots.job_channel import JobChannel
from trainables.slots.leases import channel_of, failure, let_go
from trainables.slots.messages import JOB_KINDS, End, EvaluateJob, Lease, Message, ProfileJob, TrainJob
from trainables.slots.packed.packed_jobs import PackedJobs
from trainables.slots.stages.stage_jobs import do_stage
from trainables.slots.student_jobs import train_job
from trainables.slots.warm_state import WarmState
from trainables.teacher.cache_request import stated_features
from trainables.teacher.loading import load_teacher
from trainables.training.ranks import SOLO, Team, lost_a_rank, team_here

TAKE_WAIT_S = 5.0
EVALUATED_TOGETHER = 512

log = logging.getLogger(__name__)


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
    packs = PackedJobs(warm, broker, config["slot"], config["students"], do_lease) if team.size == 1 else None
    while True:
        answer = None
        if team.rank == 0:
            answer = ray.get(broker.take.remote(config["slot"], os.getpid(), TAKE_WAIT_S))
        answer = team.tell(answer)
        if answer == CLOSED:
            return
        if answer is not None:
            lease = Lease.from_plain(answer)
            if packs is None or not packs.do(lease):
                do_lease(lease, warm, broker, team)


def do_lease(lease: Lease, warm: WarmState, broker: Any, team: Team = SOLO) -> None:
    """Do one job; an exception ends that job as failed with its reason, and the slot goes on.

    Raises:
        Exception: whatever left the ranks of a team in different places; Ray Train starts them all again.
    """
    job = JOB_KINDS[lease.job["kind"]].from_plain(lease.job)
    together = team.size > 1 and isinstance(job, TrainJob)
    if team.rank > 0 and not together:
        return
    with channel_of(lease, job.job_id, broker, team=team, listens=team.rank == 0) as channel:
        try:
            HANDLERS[job.kind](job, warm, channel)
        except TrialFailed as error:  # of figures that all ranks share, so all ranks end here
            channel.send(failure(error))
        except Exception as error:  # a user's model may raise anything; the search goes on
            if together and lost_a_rank(error):
                raise  # the job is none the worse: it goes on when the slot is back
            log.exception("%s failed", job.job_id)
            channel.send(failure(error))
            let_go(error)
            if together:
                raise
