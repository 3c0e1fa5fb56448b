"""Keeps Tune's proxies in the driver's process: as actors each is a process of 200 MB that only waits."""

from __future__ import annotations

import contextlib
import copy
import importlib
import inspect
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any, Final

import ray

from trainables.slots.proxies.proxy_calls import Asked, Handle, Proxy
from trainables.slots.proxies.tune_trial import StudentTrial

_CONTROLLER: Final = "ray.tune.execution.tune_controller"
_MANAGER: Final = "RayActorManager"
# Of exports by Tune, which a proxy has none of.
_NEVER_ASKED: Final = frozenset({"_actor_task_events"})
_NOTHING_DUE_S: Final = 0.1


class ProxiesInDriver:
    """Does for Tune's loop what Ray's manager of actors does, with proxies that are objects of this process.

    A step of a proxy waits for the broker. Here only the call at the broker is under way meanwhile, so that
    the loop waits for all proxies at once and no thread does; a step is done when its message is there. All
    else that Tune asks of a proxy takes no time and is done at once, but told of, as Tune expects, when it
    asks for the next event. What goes in and out is copied, as on the way to another process: Tune and a
    trial would otherwise count checkpoints in the same object.
    """

    def __init__(self, make: Callable[..., StudentTrial], resource_manager: Any = None) -> None:
        """`make` is what Tune was given to try; a proxy takes nothing from the cluster."""
        self._make = make
        self._to_start: dict[Proxy, dict[str, Any]] = {}
        self._calls_before_start: dict[Proxy, list[Callable[[], None]]] = {}
        self._live_actors_to_ray_actors_resources: dict[Proxy, tuple[Handle, None]] = {}
        self._trials: dict[Proxy, StudentTrial] = {}
        self._failed: set[Proxy] = set()
        self._leaving: set[Proxy] = set()
        self._steps: dict[Any, Asked] = {}
        """By the call at the broker, who waits for it."""
        self._told: deque[tuple[Proxy, Callable[[], None]]] = deque()
        self._changes: deque[Callable[[], None]] = deque()

    @property
    def num_live_actors(self) -> int:
        """Proxies that were made and not stopped."""
        return len(self._trials)

    @property
    def num_pending_actors(self) -> int:
        """Proxies that will be made with the next event."""
        return len(self._to_start)

    @property
    def num_total_actors(self) -> int:
        """All proxies."""
        return self.num_live_actors + self.num_pending_actors

    @property
    def num_actor_tasks(self) -> int:
        """Calls of which Tune was not told yet."""
        return len(self._steps) + len(self._told)

    def get_live_actors_resources(self) -> dict[str, float]:
        """What the proxies take from the cluster: nothing."""
        return {}

    def is_actor_started(self, tracked_actor: Proxy) -> bool:
        """Whether the proxy was made and not stopped."""
        return tracked_actor in self._trials

    def is_actor_failed(self, tracked_actor: Proxy) -> bool:
        """Whether the proxy could not be made."""
        return tracked_actor in self._failed

    def add_actor(
        self,
        cls: Any,
        kwargs: dict[str, Any],
        resource_request: Any,
        *,
        on_start: Callable[[Proxy], None] | None = None,
        on_stop: Callable[[Proxy], None] | None = None,
        on_error: Callable[[Proxy, Exception], None] | None = None,
    ) -> Proxy:
        """A proxy that is made with the next event; Tune's class and resources of an actor play no part."""
        proxy = Proxy(on_start, on_stop, on_error)
        self._to_start[proxy] = copy.deepcopy(kwargs)
        return proxy

    def schedule_actor_task(  # budget: these are the arguments that Tune gives
        self,
        tracked_actor: Proxy,
        method_name: str,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        on_result: Callable[[Proxy, Any], None] | None = None,
        on_error: Callable[[Proxy, Exception], None] | None = None,
        _return_future: bool = False,
    ) -> None:
        """Call a method of a proxy; its outcome is told with a later event.

        Raises:
            ValueError: the proxy is none of this manager.
        """
        asked = Asked(tracked_actor, on_result, on_error)
        call = partial(self._call, asked, method_name, copy.deepcopy((args or (), kwargs or {})))
        if tracked_actor in self._trials:
            call()
        elif tracked_actor in self._to_start:
            self._calls_before_start.setdefault(tracked_actor, []).append(call)
        elif tracked_actor not in self._failed:
            raise ValueError(f"{tracked_actor} is no proxy of this search")

    def clear_actor_task_futures(self, tracked_actor: Proxy) -> None:
        """Tell nothing more of the calls of a proxy, and wait for none."""
        self._steps = {call: asked for call, asked in self._steps.items() if asked.proxy is not tracked_actor}
        self._told = deque(event for event in self._told if event[0] is not tracked_actor)

    def remove_actor(self, tracked_actor: Proxy, kill: bool = False, stop_future: Any = None) -> bool:
        """Let a proxy go, which Tune has called to stop before; whether its end will be told.

        Raises:
            ValueError: the proxy is none of this manager.
        """
        if tracked_actor in self._failed:
            return False
        if tracked_actor in self._trials:
            self._leaving.add(tracked_actor)
            self._changes.append(partial(self._stopped, tracked_actor))
            return True
        if self._to_start.pop(tracked_actor, None) is None:
            raise ValueError(f"{tracked_actor} is no proxy of this search")
        self._calls_before_start.pop(tracked_actor, None)
        return False

    def next(self, timeout: float | None = None) -> bool:
        """Tell Tune of one event, which is waited for `timeout` seconds at most; whether there was one."""
        self._start()
        if self._changes:
            self._changes.popleft()()
            return True
        if not self._told and not self._hear(timeout):
            return False
        self._told.popleft()[1]()
        return True

    def cleanup(self) -> None:
        """Let all proxies go; those that Tune did not stop tell the broker that they want no more."""
        for trial in self._trials.values():
            with contextlib.suppress(ray.exceptions.RayError):  # a broker that is gone has nothing to drop
                trial.stop()  # type: ignore[no-untyped-call]
        self.__init__(self._make)  # type: ignore[misc]  # as new

    def _start(self) -> None:
        while self._to_start:
            proxy = next(iter(self._to_start))
            kwargs, calls = self._to_start.pop(proxy), self._calls_before_start.pop(proxy, [])
            try:
                trial = self._make(**kwargs)
            except Exception as error:  # noqa: BLE001  as with an actor, it ends that trial alone
                self._failed.add(proxy)
                self._changes.append(partial(self._not_made, proxy, error))
                continue
            self._trials[proxy] = trial
            self._live_actors_to_ray_actors_resources[proxy] = Handle(trial), None
            self._changes.append(partial(self._made, proxy))
            for call in calls:
                call()

    def _made(self, proxy: Proxy) -> None:
        if proxy in self._trials and proxy not in self._leaving and proxy.on_start is not None:
            proxy.on_start(proxy)

    def _not_made(self, proxy: Proxy, error: Exception) -> None:
        if proxy.on_error is not None:
            proxy.on_error(proxy, error)

    def _stopped(self, proxy: Proxy) -> None:
        self.clear_actor_task_futures(proxy)
        self._leaving.discard(proxy)
        if self._trials.pop(proxy, None) is None:
            return
        del self._live_actors_to_ray_actors_resources[proxy]
        if proxy.on_stop is not None:
            proxy.on_stop(proxy)

    def _call(self, asked: Asked, method: str, given: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
        trial, (args, kwargs) = self._trials[asked.proxy], given
        if method == "train":
            self._outcome(asked, partial(self._ask, asked, trial))
            return
        if method == "stop":
            self.clear_actor_task_futures(asked.proxy)
        self._outcome(asked, lambda: self._result(asked, getattr(trial, method)(*args, **kwargs)))

    def _ask(self, asked: Asked, trial: StudentTrial) -> None:
        self._steps[trial.asking()] = asked

    def _hear(self, timeout: float | None) -> bool:
        """Wait for the answer to some step; whether there is something to tell."""
        if not self._steps:
            time.sleep(_NOTHING_DUE_S if timeout is None else min(timeout, _NOTHING_DUE_S))
            return False
        ready, _ = ray.wait(list(self._steps), num_returns=1, timeout=timeout)
        for call in ready:
            asked = self._steps.pop(call)
            self._outcome(asked, partial(self._answered, asked, call))
        return bool(self._told)

    def _answered(self, asked: Asked, call: Any) -> None:
        trial = self._trials[asked.proxy]
        if trial.hear(ray.get(call)):
            self._result(asked, trial.train())  # type: ignore[no-untyped-call]
        else:
            self._ask(asked, trial)

    def _result(self, asked: Asked, result: Any) -> None:
        given = copy.deepcopy(result)
        self._told.append((asked.proxy, partial(_tell, asked.on_result, asked.proxy, given)))

    def _outcome(self, asked: Asked, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001  as with an actor, it ends that trial alone
            self._told.append((asked.proxy, partial(_tell, asked.on_error, asked.proxy, error)))


def _tell(callback: Callable[..., None] | None, *what: Any) -> None:
    if callback is not None:
        callback(*what)


def can_be_in_driver() -> bool:
    """Whether this version of Ray has its parts where they are looked for, and asks what is answered here."""
    controller = _controller()
    if controller is None or not hasattr(controller, _MANAGER):
        return False
    asked = set(re.findall(r"_actor_manager\.(\w+)", inspect.getsource(controller)))
    return all(hasattr(ProxiesInDriver(StudentTrial), name) for name in asked - _NEVER_ASKED)


@contextmanager
def proxies_in_driver(make: Callable[..., StudentTrial]) -> Iterator[None]:
    """Has Tune keep its proxies in this process for the length of a block, actors where it cannot."""
    controller = _controller()
    if controller is None or not can_be_in_driver():
        yield
        return
    before = getattr(controller, _MANAGER)
    setattr(controller, _MANAGER, partial(ProxiesInDriver, make))
    try:
        yield
    finally:
        setattr(controller, _MANAGER, before)


def _controller() -> ModuleType | None:
    try:
        return importlib.import_module(_CONTROLLER)
    except ImportError:
        return None
