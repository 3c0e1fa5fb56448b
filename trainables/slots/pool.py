"""The pool of warm slots: one Ray Train run each, started early, kept until the search is over."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback

from trainables.config import DataConfig
from trainables.slots.slot_trainer import SlotTrainer
from trainables.slots.worker import slot_loop

LOOK_S: Final = 5.0

log = logging.getLogger(__name__)

Room = Callable[[], int]
"""How many slots the cluster, as it is now, can hold."""


@dataclass(frozen=True)
class SlotShape:
    """What one slot takes from the cluster; CPUs and GPUs are those of one worker."""

    cpus: int
    gpus: float
    workers: int = 1
    students: int | str = 1
    """How many students it trains at once, or `auto`; a slot of several workers trains one."""


@dataclass
class SlotPool:
    """Keeps slots in threads of the driver: as many as were started, or as there comes to be room for.

    Ray Train restarts the workers of a slot by itself (`max_failures`); the pool replaces a whole slot when
    its controller is gone, `max_restarts` times, not counting those during which a node was lost. With
    `room`, it looks at the cluster every few seconds: new nodes get slots, and a slot for which there is no
    room any more ends when Ray has tried in vain to place it. When no slot is left, everybody who waits
    for a job is told why.
    """

    broker: Any
    shape: SlotShape
    data: DataConfig
    storage: str
    room: Room | None = None
    max_failures: int = 3
    max_restarts: int = 2
    _threads: list[threading.Thread] = field(default_factory=list)
    _closing: threading.Event = field(default_factory=threading.Event)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _nodes: frozenset[str] = frozenset()
    _alive: int = 0
    _given_up: int = 0
    _nodes_lost: int = 0
    _failure: str | None = None

    def start(self, slots: int) -> None:
        """Begin to start slots; returns at once."""
        self._nodes = _living_nodes()
        with self._lock:
            self._add(slots)
        self._begin(self._watch, "slots")

    def close(self, timeout_s: float = 30.0) -> bool:
        """Tell the slots to end and wait for them, `timeout_s` seconds at most together; whether all have.

        While one has not, a thread of this process waits for its answer from Ray.
        """
        deadline = time.monotonic() + timeout_s
        self._closing.set()
        with contextlib.suppress(ray.exceptions.RayError):  # a broker that is gone can tell no slot to end
            ray.get(self.broker.close.remote())
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
        return not any(thread.is_alive() for thread in self._threads)

    def _watch(self) -> None:
        """Look after the cluster until the pool is closed."""
        while not self._closing.wait(LOOK_S):
            try:
                self._look()
            except ray.exceptions.RayError as error:
                log.warning("cannot look at the cluster: %s; looking again in %g s", error, LOOK_S)

    def _look(self) -> None:
        nodes = _living_nodes()
        room = self.room() if self.room is not None else 0
        with self._lock:
            lost, self._nodes = self._nodes - nodes, nodes
            self._nodes_lost += len(lost)
            if lost:
                log.warning(
                    "%d nodes are lost; the slots that were on them move where there is room", len(lost)
                )
            # A slot that was given up still counts: another in its place would fare no better.
            missing = room - self._alive - self._given_up
            if self._alive and missing > 0:
                log.info("there is room for %d more slots", missing)
                self._add(missing)
            failure = self._failure
        if failure is not None:  # again: a broker that died and came back has forgotten it
            ray.get(self.broker.fail.remote(failure))

    def _add(self, slots: int) -> None:
        for _ in range(slots):
            slot = f"slot-{next(self._numbers)}"
            self._alive += 1
            self._begin(partial(self._keep, slot), slot)

    def _begin(self, work: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _keep(self, slot: str) -> None:
        failures = 0
        for restart in itertools.count():
            nodes_lost, reason = self._nodes_lost, "its loop returned, which it should not"
            try:
                self._run(slot, restart)
            except Exception as error:  # noqa: BLE001  Ray Train raises many kinds; each ends this attempt only
                reason = f"{type(error).__name__}: {error}"
            if self._closing.is_set():
                return
            log.warning("%s ended early: %s", slot, reason)
            ray.get(self.broker.slot_lost.remote(slot))
            self._look()
            failures += self._nodes_lost == nodes_lost
            if self._leaves(slot, failures, reason):
                return

    def _leaves(self, slot: str, failures: int, reason: str) -> bool:
        """Whether a slot that ended is not started again; the last one fails every waiting job."""
        broken = failures > self.max_restarts
        with self._lock:  # of two that end at once, each must count the other as it is after that
            crowded = self.room is not None and self.room() < self._alive
            if not broken and not crowded:
                return False
            self._alive -= 1
            self._given_up += broken
            if self._alive == 0:
                why = f"it ended {failures} times" if broken else "the cluster has no room for it any more"
                self._failure = f"no slot is left; of the last one, {slot}, {why}: {reason}"
        log.warning("%s is not started again", slot)
        if self._failure is not None:
            ray.get(self.broker.fail.remote(self._failure))
        return True

    def _run(self, slot: str, restart: int) -> None:
        resources: Mapping[str, float] = {"CPU": self.shape.cpus, "GPU": self.shape.gpus}
        SlotTrainer(
            slot_loop,
            train_loop_config={
                "broker": self.broker,
                "slot": slot,
                "threads": self.shape.cpus,
                "students": self.shape.students,
                "data": self.data.plain(),
            },
            scaling_config=ScalingConfig(
                num_workers=self.shape.workers,
                use_gpu=self.shape.gpus > 0,
                resources_per_worker={name: n for name, n in resources.items() if n > 0},
            ),
            run_config=RunConfig(
                storage_path=self.storage,
                name=f"{slot}-{restart}",
                # Of Train V2, both of them, which mypy takes for V1.
                callbacks=[_GivesBack(self.broker, slot)],  # type: ignore[list-item]
                failure_config=FailureConfig(  # type: ignore[call-arg]
                    max_failures=self.max_failures, controller_failure_limit=2
                ),
            ),
        ).fit()


class _GivesBack(UserCallback):
    """Gives a slot's job back as soon as one of its workers is dead: another slot need not wait for it."""

    def __init__(self, broker: Any, slot: str) -> None:
        self._broker = broker
        self._slot = slot

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called by the controller, before it starts the workers again."""
        self._broker.slot_lost.remote(self._slot)


def _living_nodes() -> frozenset[str]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return frozenset(str(node["NodeID"]) for node in nodes if node["Alive"])
