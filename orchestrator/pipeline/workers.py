"""The workers of a run: session, broker and slots, each started when it is first needed."""

from __future__ import annotations

import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
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
from trainables.config import DataConfig
from trainables.config.data import SplitFacts
from trainables.config.representation.preparation import PreparedPart
from trainables.slots.follower import start_broker
from trainables.slots.messages import Stage
from trainables.slots.pool import SlotPool, SlotShape
from trainables.slots.slot_trainer import can_be_in_driver
from trainables.slots.stages.stage_calls import done_by_slot, done_by_task, shards_by_slots
from trainables.teacher.cache_build import Computing
from trainables.training.measure_ensemble import EnsembleRequest
from trainables.training.prepare_teacher import PreparationRequest
from trainables.training.train_teacher import TeacherFacts, TeacherRequest
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
        plan, broker, shape = self.plan, self.broker, self._experiment.cluster
        self._pool = SlotPool(
            broker,
            SlotShape(plan.cpus, plan.gpus, plan.workers_per_slot, shape.students_per_slot),
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

    def computing(self) -> Computing | None:
        """What computes the shards of a cache: slots where they are up; with None, actors of Ray Data's."""
        if not self._slots_do_stages():
            return None
        return partial(shards_by_slots, self.broker, self.plan.slots)

    def teacher(
        self, request: TeacherRequest, on_epoch: Callable[[int, dict[str, float]], None]
    ) -> TeacherFacts:
        """Make the teacher on some worker of the cluster.

        Raises:
            StillhouseError: whatever `make_teacher` raises.
        """
        return TeacherFacts.from_plain(self.made(Stage.TEACHER, request.plain(), on_epoch))

    def prepare(
        self, request: PreparationRequest, on_epoch: Callable[[int, dict[str, float]], None], *, heard: int
    ) -> PreparedPart:
        """Prepare a finished teacher on some worker of the cluster; so many epochs were told before.

        Raises:
            StillhouseError: whatever `prepare_teacher` raises.
        """
        asked = {"request": request.plain(), "heard": heard}
        return PreparedPart.from_plain(self.made(Stage.PREPARATION, asked, on_epoch))

    def ensemble(self, request: EnsembleRequest) -> TeacherFacts:
        """Have several finished teachers looked at together on some worker of the cluster.

        Raises:
            StillhouseError: whatever `measure_ensemble` raises.
        """
        return TeacherFacts.from_plain(self.made(Stage.ENSEMBLE, request.plain()))

    def split(self, data: DataConfig) -> SplitFacts:
        """The facts of the data as some worker of the cluster finds them.

        Raises:
            StillhouseError: whatever `load_training` raises.
        """
        return SplitFacts.from_plain(self.made(Stage.SPLIT, data.plain()))

    def made(
        self,
        stage: Stage,
        request: Mapping[str, Any],
        on_epoch: Callable[[int, dict[str, float]], None] = lambda *_: None,
    ) -> dict[str, Any]:
        """What some worker of the cluster makes of a stage: a slot, or where none is up a task of Ray's.

        Raises:
            Exception: whatever the stage raises.
        """
        if self._slots_do_stages():
            return done_by_slot(self.broker, stage, request, on_epoch)
        return done_by_task(self.broker, stage, request, on_epoch, resources=self.stage_resources())

    def _slots_do_stages(self) -> bool:
        """Whether stages have no device of their own: then slots, which have imported all, do them."""
        return self._pool is not None and self.stage_resources() == (0, 0)


def is_left_open() -> bool:
    """Whether a session was left to end with the process, since a slot was slow to leave."""
    return bool(_LEFT_OPEN)


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
