"""The pool of warm slots: one Ray Train run each, started early, kept until the search is over."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from trainables.config import DataConfig
from trainables.slot import slot_loop

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SlotShape:
    """What one slot takes from the cluster."""

    cpus: int
    gpus: float


@dataclass
class SlotPool:
    """Starts slots in threads of the driver; a slot that ends with an error is replaced `max_restarts` times.

    Ray Train restarts the worker of a slot by itself (`max_failures`); the pool replaces the whole
    slot when its controller is gone. When no slot is left, everybody who waits for a job is told why.
    """

    broker: Any
    shape: SlotShape
    data: DataConfig
    storage: str
    max_failures: int = 3
    max_restarts: int = 2
    _threads: list[threading.Thread] = field(default_factory=list)
    _closing: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _alive: int = 0

    def start(self, slots: int) -> None:
        """Begin to start slots; returns at once."""
        for number in range(slots):
            self._alive += 1
            thread = threading.Thread(target=self._keep, args=(f"slot-{number}",), daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self, timeout_s: float = 30.0) -> None:
        """Send the slots home and wait for them, at most `timeout_s` seconds together."""
        self._closing.set()
        ray.get(self.broker.close.remote())
        for thread in self._threads:
            thread.join(timeout_s / max(len(self._threads), 1))

    def _keep(self, slot: str) -> None:
        reason = ""
        for restart in range(self.max_restarts + 1):
            try:
                self._run(slot, restart)
            except Exception as error:  # noqa: BLE001  Ray Train raises many kinds; each ends this attempt only
                reason = f"{type(error).__name__}: {error}"
            if self._closing.is_set():
                return
            log.warning("%s ended early: %s", slot, reason)
            ray.get(self.broker.slot_lost.remote(slot))
        with self._lock:
            self._alive -= 1
            nobody_left = self._alive == 0
        if nobody_left:
            ray.get(self.broker.fail.remote(f"no slot is left; the last one ended with {reason}"))

    def _run(self, slot: str, restart: int) -> None:
        resources: Mapping[str, float] = {"CPU": self.shape.cpus, "GPU": self.shape.gpus}
        TorchTrainer(
            slot_loop,
            train_loop_config={
                "broker": self.broker,
                "slot": slot,
                "threads": self.shape.cpus,
                "data": self.data.plain(),
            },
            scaling_config=ScalingConfig(
                num_workers=1,
                use_gpu=self.shape.gpus > 0,
                resources_per_worker={name: n for name, n in resources.items() if n > 0},
            ),
            run_config=RunConfig(
                storage_path=self.storage,
                name=f"{slot}-{restart}",
                failure_config=FailureConfig(  # type: ignore[call-arg]  # of Train V2, which mypy takes for V1
                    max_failures=self.max_failures, controller_failure_limit=2
                ),
            ),
        ).fit()
