"""What follows jobs at the broker, and keeps driver and proxies connected when it dies and comes back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import ray

from trainables.slots.broker import FORGOTTEN, Broker
from trainables.slots.messages import Message

NEXT_WAIT_S: Final = 20.0
QUIET_S: Final = 3.0
"""How long a broker that came back gives out nothing: within it, slots let go of what they held."""
_BORN_WAIT_S: Final = 2.0
_LOOK_S: Final = 0.25

log = logging.getLogger(__name__)


class Follower:
    """Follows one job, whatever happens to the broker.

    It keeps all that it heard. A broker that has forgotten the job is given the job again, together with
    that, so that the job goes on after what was heard.
    """

    def __init__(self, broker: Any, job_id: str, job: Mapping[str, Any] | None, *, holder: str) -> None:
        """`job` is None for one that is done outside the slots; `holder` names who follows, for good."""
        self.job_id = job_id
        self.heard: list[Message] = []
        self._broker = broker
        self._job = job
        self._holder = holder

    def submit(self) -> int:
        """Make the job known; how many of its messages this holder passed on before, in another process."""
        return int(ray.get(self.submitting()))

    def submitting(self) -> Any:
        """The call of `submit`, under way; for a job outside the slots its answer is the attempt."""
        if self._job is None:
            return self._broker.expect.remote(self.job_id, self.heard, self._holder)
        return self._broker.submit.remote(self.job_id, self._job, self.heard, self._holder)

    def ask(self) -> Any:
        """The call for the next message, under way; `hear` takes its answer."""
        return self._broker.next.remote(self.job_id, len(self.heard), NEXT_WAIT_S, self._holder)

    def hear(self, answer: Message | str | None) -> Message | None:
        """The message of an answer, if it holds one; when the broker has forgotten the job, it is told."""
        if isinstance(answer, str):
            if answer != FORGOTTEN:
                raise ValueError(f"the broker answered {answer!r}; known: a message, none, {FORGOTTEN!r}")
            self.submit()
            return None
        if answer is not None:
            self.heard.append(answer)
        return answer

    def next(self) -> Message:
        """The next message, waited for as long as it takes."""
        message = None
        while message is None:
            message = self.hear(ray.get(self.ask()))
        return message

    def cancel(self) -> None:
        """Say that this holder wants no more of the job."""
        ray.get(self._broker.cancel.remote(self.job_id, self._holder))


class _BrokerActor(Broker):
    """The broker as Ray runs it: one that came back holds still for a moment."""

    def __init__(self) -> None:
        came_back = ray.get_runtime_context().was_current_actor_reconstructed
        super().__init__(quiet_s=QUIET_S if came_back else 0.0)


def start_broker(name: str) -> Any:
    """The broker as a named actor of the current session; it takes no CPU and lives as long as its handle.

    Ray starts it again when it dies, and repeats the calls that it had not answered: each of them may
    come twice.
    """
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "max_concurrency": 1000}
    actor: Any = ray.remote(**options)(_BrokerActor)  # type: ignore[call-overload]
    return actor.options(name=name).remote()


@contextmanager
def briefed(broker: Any, tell: Callable[[], None]) -> Iterator[None]:
    """Tells the broker what it has to know, now and whenever it has come back, for the length of a block.

    `tell` is called from a thread of its own when the broker came back. What slots had agreed on is told
    again as well.
    """
    born = ray.get(broker.born.remote(0, 0.0))
    tell()
    over = threading.Event()

    def keep() -> None:
        known, agreed = born, dict[str, str]()
        while True:
            news = broker.born.remote(known, _BORN_WAIT_S)
            while not ray.wait([news], timeout=_LOOK_S)[0]:
                if over.is_set():
                    return
            now = ray.get(news)
            if now != known:
                log.warning("the broker died and came back; it is told what was known")
                ray.get([broker.agree.remote(key, value) for key, value in agreed.items()])
                tell()
            known, agreed = now, ray.get(broker.agreements.remote())

    thread = threading.Thread(target=keep, name="briefing", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(2 * _BORN_WAIT_S)
