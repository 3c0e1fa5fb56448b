"""Ray's trainer as a slot needs it: its controller in a thread of the driver, and no helper processes."""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import logging
import os
import threading
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

import ray
from ray.runtime_context import RuntimeContext
from ray.train.torch import TorchTrainer

_CALLBACKS: Final = "ray.train.v2._internal.callbacks."
_EXECUTION: Final = "ray.train.v2._internal.execution."
_SYNCHRONISATION: Final = "SynchronizationActor"
_END_OF_SYNCHRONISATION: Final = "_shutdown_sync_actor"
_OF_DATA_SETS: Final = _CALLBACKS + "datasets"
_OF_CLEANER: Final = _CALLBACKS + "placement_group_callback"
_OWN_LOG: Final = "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING"
_SETTLING: Final = threading.Lock()


class SlotTrainer(TorchTrainer):
    """Ray Train's controller, workers and restarts, in three processes less for each slot.

    A slot's images are no Ray data sets, since the workbench reads them: Ray's manager of data sets, a
    process of 200 MB for each group of workers, is left out. The controller would be an actor that imports
    PyTorch, beside another that gives its workers' place free should it die; in the driver it cannot die
    alone, and Ray itself gives the places free when the driver ends. Where a version of Ray calls its parts
    by other names, all is as Ray makes it.
    """

    def _create_default_callbacks(self) -> list[Any]:
        left_out = {_OF_DATA_SETS, _OF_CLEANER} if can_be_in_driver() else {_OF_DATA_SETS}
        # Of Train V2, which mypy takes for V1.
        callbacks: list[Any] = super()._create_default_callbacks()  # type: ignore[misc]
        return [one for one in callbacks if type(one).__module__ not in left_out]

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        """Called by `fit`: the run, from its start to its end."""
        if not can_be_in_driver():
            return super()._initialize_and_run_controller(**parts)  # type: ignore[misc]
        _settle()
        _ask_no_autoscaler(parts.get("scaling_policy"))
        controller = _parts().controller(**parts)
        # What the controller says was in a log of its own process. Why a slot ends, the pool tells.
        logging.getLogger("ray.train").setLevel(logging.CRITICAL)
        asyncio.run(controller.run())
        return controller.get_result()


@dataclass(frozen=True)
class _Parts:
    """What is used of Ray Train beside its interface."""

    controller: Any
    group: Any
    group_state: Any
    constants: Any

    @property
    def are_known(self) -> bool:
        """Whether all is called as it is looked for."""
        return (
            inspect.iscoroutinefunction(getattr(self.controller, "run", None))
            and hasattr(self.controller, "get_result")
            and hasattr(self.group, _SYNCHRONISATION)
            and hasattr(self.group_state, _END_OF_SYNCHRONISATION)
            and _OWN_LOG in vars(self.constants or object).values()
        )


def can_be_in_driver() -> bool:
    """Whether this version of Ray Train has its parts where they are looked for."""
    return _parts().are_known


def _parts() -> _Parts:
    controller = getattr(_module(_EXECUTION + "controller"), "TrainController", None)
    group = _EXECUTION + "worker_group."
    constants = _module("ray.train.v2._internal.constants")
    return _Parts(controller, _module(group + "worker_group"), _module(group + "state"), constants)


def _settle() -> None:
    """Has Ray Train take a driver for the place of a controller, for good: only slots use it here."""
    with _SETTLING:  # slots begin at once, each in its thread
        _settle_once()


@functools.cache
def _settle_once() -> None:
    # A controller would replace the handlers of the whole process's log, while other threads write to it.
    os.environ[_OWN_LOG] = "0"
    asks = RuntimeContext.current_actor.fget  # type: ignore[attr-defined]  # a property

    def current_actor(context: RuntimeContext) -> Any:
        # Workers are told of their controller's actor, to ask it for checkpoints; slots keep none with Ray.
        return None if context.worker.actor_id.is_nil() else asks(context)

    RuntimeContext.current_actor = property(current_actor)  # type: ignore[method-assign, assignment]
    parts = _parts()
    ends = getattr(parts.group_state, _END_OF_SYNCHRONISATION)

    def end(actor: Any) -> None:
        if not isinstance(actor, NoSynchronisation):
            ends(actor)

    setattr(parts.group, _SYNCHRONISATION, NoSynchronisation)
    setattr(parts.group_state, _END_OF_SYNCHRONISATION, end)


def _ask_no_autoscaler(policy: Any) -> None:
    """Leaves out what tells an autoscaler of a slot, an actor, where the cluster is this process's own.

    That one has a single machine. Where a version of Ray calls it by other names, it is told.
    """
    node: Any = ray._private.worker._global_node
    if node is None or not node.head:
        return
    for method in ("_send_resource_request", "_maybe_send_resource_request", "_cancel_resource_request"):
        if hasattr(policy, method):
            setattr(policy, method, lambda: None)


class NoSynchronisation:
    """In the place of an actor that makes workers wait for each other when they report to Ray Train."""

    @classmethod
    def options(cls, **_: Any) -> type[NoSynchronisation]:
        """As of an actor's class."""
        return cls

    @classmethod
    def remote(cls, **_: Any) -> NoSynchronisation:
        """As of an actor's class."""
        return cls()


def _module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
