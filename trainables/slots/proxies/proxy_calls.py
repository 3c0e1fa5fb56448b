"""What Tune holds of a proxy that is no actor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from trainables.slots.proxies.tune_trial import StudentTrial


@dataclass(eq=False)
class Proxy:
    """What stands for an actor at Tune, which sets these callbacks anew when a trial ends."""

    on_start: Callable[[Proxy], None] | None
    on_stop: Callable[[Proxy], None] | None
    on_error: Callable[[Proxy, Exception], None] | None

    def set_on_start(self, callback: Callable[[Proxy], None] | None) -> None:
        """What to call when the proxy is there."""
        self.on_start = callback

    def set_on_stop(self, callback: Callable[[Proxy], None] | None) -> None:
        """What to call when the proxy has been stopped."""
        self.on_stop = callback

    def set_on_error(self, callback: Callable[[Proxy, Exception], None] | None) -> None:
        """What to call when the proxy could not be made."""
        self.on_error = callback


@dataclass(frozen=True)
class Asked:
    """Who is told what came of a call."""

    proxy: Proxy
    on_result: Callable[[Proxy, Any], None] | None
    on_error: Callable[[Proxy, Exception], None] | None


class Handle:
    """A proxy as Tune and the driver call an actor; the call is done when it is made."""

    def __init__(self, trial: StudentTrial) -> None:
        self._trial = trial

    def __getattr__(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(remote=getattr(self._trial, name))
