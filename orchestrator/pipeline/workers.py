"""The workers of a run: session, broker and slots, each started when it is first needed."""

from __future__ import annotations

import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import ray

from cluster.environment import WorkerSetup
from cluster.errors import ClusterError
from cluster.resources import Capacity, SlotPlan, capacity, plan_slots, slots_held
from cluster.session import connect
from orchestrator.config.schema import ExperimentConfig
from orchestrator.own_packages import SETUP_HOOK
from orchestrator.terminal.console import Console
from trainables.config import Config, DataConfig
from trainables.config.data import SplitFacts
from trainables.config.representation.preparation import PreparedPart
from trainables.data import load_training
from trainables.data.splits import split_facts
from trainables.slots.follower import Follower, start_broker
from trainables.slots.messages import End, Message
from trainables.slots.pool import SlotPool, SlotShape
from trainables.slots.slot_trainer import can_be_in_driver
from trainables.training.measure_ensemble import EnsembleRequest, measure_ensemble
from trainables.training.prepare_teacher import PreparationRequest, prepare_teacher
from trainables.training.train_teacher import TeacherFacts, TeacherRequest, make_teacher
from trainables.user_code import FOLDER_VARIABLE

CLOSE_S = 30.0
HURRIED_CLOSE_S = 2.0
_LEFT_OPEN: list[ExitStack] = []
"""Sessions that some slot's thread may still call; they end with the process, see `cli.main`."""


class Workers:
    """Context manager over the Ray session of a run; leaving it ends the slots and the session."""

    def __init__(self, experiment: ExperimentConfig, folder: Path, console: Console) -> None:
        self._experiment = experiment
        self._folder = folder
        self._console = console
        self._stack = ExitStack()
        self._broker: Any = None
        self._pool: SlotPool | None = None
        self._plan: SlotPlan | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Whoever presses Ctrl-C should not wait for slots to say goodbye.
        hurried = kind is not None and issubclass(kind, KeyboardInterrupt)
        if self._pool is None or self._pool.close(HURRIED_CLOSE_S if hurried else CLOSE_S):
            self._stack.close()
        else:
            # Ray ends a process, without a word, in which a thread calls it after its session was closed.
            _LEFT_OPEN.append(self._stack.pop_all())

    @property
    def broker(self) -> Any:
        """The broker; connects to Ray at first use."""
        if self._broker is None:
            self._console.info(
                "starting Ray" if not ray.is_initialized() else "using the running Ray session"
            )
            # Ray Train's own helper asks it whether a controller lives that is a process.
            session = connect(None, workers=_setup(), dashboard=not can_be_in_driver())
            url = self._stack.enter_context(session).dashboard_url
            if url is not None:
                self._console.info(f"Ray's dashboard: {url}")
            self._stack.enter_context(_interruptible())  # inside: Ray takes SIGTERM over when it starts
            # One broker a run: several runs may share a cluster.
            self._broker = start_broker(f"broker-{uuid.uuid4().hex[:12]}")
        return self._broker

    @property
    def capacity(self) -> Capacity:
        """What the cluster holds."""
        _ = self.broker
        return capacity()

    @property
    def plan(self) -> SlotPlan:
        """How many slots there will be, and their shape."""
        if self._plan is None:
            shape = self._experiment.cluster
            self._plan = plan_slots(
                self.capacity,
                slots=shape.slots,
                cpus_per_worker=shape.cpus_per_worker,
                gpus_per_worker=shape.gpus_per_worker,
                workers_per_slot=shape.workers_per_slot,
            )
        return self._plan

    def _room(self) -> int:
        """Slots of the plan's shape that the cluster can hold now, but no more than were asked for."""
        plan, wanted = self.plan, self._experiment.cluster.slots
        try:
            found = capacity()
        except ClusterError:  # no node is alive, for the moment or for good
            return 0
        held = slots_held(
            found,
            cpus_per_worker=plan.cpus,
            gpus_per_worker=plan.gpus,
            workers_per_slot=plan.workers_per_slot,
        )
        return held if wanted is None else min(held, wanted)

    def start_slots(self) -> None:
        """Begin to start the slots, unless they are up or on their way."""
        if self._pool is not None:
            return
        plan, broker = self.plan, self.broker
        self._pool = SlotPool(
            broker,
            SlotShape(plan.cpus, plan.gpus, plan.workers_per_slot),
            self._experiment.data,
            str(self._folder / "slots" / uuid.uuid4().hex[:8]),
            room=self._room,
        )
        self._console.info(f"starting {plan.described()}")
        self._pool.start(plan.slots)

    def start_slots_early(self) -> None:
        """Start the slots beside teacher and cache where these leave room: a single machine without GPU.

        There, teacher and cache ask for no CPU of Ray's and share the cores with slots that only start
        up; on a larger cluster the teacher's pass over the data wants all GPUs first.
        """
        if self.capacity.gpus == 0 and self.capacity.nodes == 1:
            self.start_slots()

    def stage_resources(self) -> tuple[float, float]:
        """CPUs and GPUs that a process of the teacher or of the cache asks for."""
        if self.capacity.gpus > 0:
            return 1, 1
        return (0, 0) if self._pool is not None else (1, 0)

    def teacher(
        self, request: TeacherRequest, on_epoch: Callable[[int, dict[str, float]], None]
    ) -> TeacherFacts:
        """Make the teacher on some worker of the cluster.

        Raises:
            StillhouseError: whatever `make_teacher` raises.
        """
        job_id = f"teacher-{request.digest()[:8]}"
        return TeacherFacts.from_plain(self._followed(_teacher_task, request, job_id, on_epoch))

    def prepare(
        self, request: PreparationRequest, on_epoch: Callable[[int, dict[str, float]], None], *, heard: int
    ) -> PreparedPart:
        """Prepare a finished teacher on some worker of the cluster; so many epochs were told before.

        Raises:
            StillhouseError: whatever `prepare_teacher` raises.
        """
        job_id = f"preparation-{request.digest()[:8]}"
        return PreparedPart.from_plain(self._followed(_preparation_task, request, job_id, on_epoch, heard))

    def _followed(
        self,
        task: Callable[..., dict[str, Any]],
        request: Config,
        job_id: str,
        on_epoch: Callable[[int, dict[str, float]], None],
        *more: Any,
    ) -> dict[str, Any]:
        """What a task on some worker makes of the request (and more), with each epoch that it tells of."""
        follower = Follower(self.broker, job_id, None, holder="driver")
        attempt = follower.submit()
        cpus, gpus = self.stage_resources()
        remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=2)(task)
        result = remote.remote(request.plain(), self.broker, job_id, attempt, *more)
        try:
            return _follow(follower, result, on_epoch)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error

    def ensemble(self, request: EnsembleRequest) -> TeacherFacts:
        """Have several finished teachers looked at together on some worker of the cluster.

        Raises:
            StillhouseError: whatever `measure_ensemble` raises.
        """
        return TeacherFacts.from_plain(self.asked(_ensemble_task, request))

    def split(self, data: DataConfig) -> SplitFacts:
        """The facts of the data as some worker of the cluster finds them.

        Raises:
            StillhouseError: whatever `load_training` raises.
        """
        return SplitFacts.from_plain(self.asked(_split_task, data))

    def asked(self, task: Callable[..., dict[str, Any]], request: Config) -> dict[str, Any]:
        """What a task on some worker makes of the request, which tells of nothing meanwhile.

        Raises:
            Exception: whatever the task raises.
        """
        _ = self.broker  # connects
        cpus, gpus = self.stage_resources()
        remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=2)(task)
        try:
            made: dict[str, Any] = ray.get(remote.remote(request.plain()))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        return made


def is_left_open() -> bool:
    """Whether a session was left to end with the process, since a slot was slow to leave."""
    return bool(_LEFT_OPEN)


def _follow(
    follower: Follower, result: Any, on_epoch: Callable[[int, dict[str, float]], None]
) -> dict[str, Any]:
    """The result, after each epoch was told; a task that failed raises at once.

    A result may be there before the last epochs are heard. Where a broker that died took their messages with
    it, nothing comes any more, and they are told by nobody.
    """
    news, waiting = follower.ask(), [result]
    while True:
        ready, _ = ray.wait([news, *waiting], num_returns=1)
        if ready[0] == result:
            ray.get(result)
            waiting = []
            continue
        message = follower.hear(ray.get(news))
        if message is not None and message.end is None:
            on_epoch(message.epoch, message.metrics)
        elif message is not None or not waiting:
            made: dict[str, Any] = ray.get(result)
            return made
        news = follower.ask()


def _teacher_task(request: dict[str, Any], broker: Any, job_id: str, attempt: int) -> dict[str, Any]:
    tell = _teller(broker, job_id, attempt)
    facts = make_teacher(TeacherRequest.from_plain(request), tell)
    ray.get(broker.report.remote(job_id, attempt, Message(end=End.COMPLETED)))
    return facts.plain()


def _preparation_task(
    request: dict[str, Any], broker: Any, job_id: str, attempt: int, heard: int
) -> dict[str, Any]:
    tell = _teller(broker, job_id, attempt)
    part = prepare_teacher(PreparationRequest.from_plain(request), tell, heard=heard)
    ray.get(broker.report.remote(job_id, attempt, Message(end=End.COMPLETED)))
    return part.plain()


def _teller(broker: Any, job_id: str, attempt: int) -> Callable[[int, dict[str, float]], None]:
    def tell(epoch: int, metrics: dict[str, float]) -> None:
        ray.get(broker.report.remote(job_id, attempt, Message(epoch=epoch, metrics=metrics)))

    return tell


def _ensemble_task(request: dict[str, Any]) -> dict[str, Any]:
    return measure_ensemble(EnsembleRequest.from_plain(request)).plain()


def _split_task(data: dict[str, Any]) -> dict[str, Any]:
    return split_facts(load_training(DataConfig.from_plain(data))).plain()


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM counts as Ctrl-C, so that a job that is stopped saves its state too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _setup() -> WorkerSetup:
    """What workers need to find our packages, and the user's code."""
    told = os.environ.get(FOLDER_VARIABLE)
    return WorkerSetup(SETUP_HOOK, {} if told is None else {FOLDER_VARIABLE: told})
