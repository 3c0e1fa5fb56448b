"""The board of a search, kept up to date beside Tune's loop without ever holding it up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import ray

from orchestrator.search.progress_table import SearchBoard, Slots, TuneTrial
from orchestrator.terminal.console import Console
from trainables.slots.mask_warning import mask_warning
from trainables.slots.messages import Message, TrainJob

LOOK_EVERY_S: Final = 1.0
"""Seconds between two questions to the broker about its slots."""


class SlotWatch:
    """Asks the broker now and then which slots are up, and never waits for its answer."""

    def __init__(self, broker: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._broker = broker
        self._clock = clock
        self._asked_at = -LOOK_EVERY_S
        self._answer: Any = None
        self._known: Slots | None = None

    def look(self) -> Slots | None:
        """What the broker said last; none while it has not answered, or when it is gone."""
        if self._answer is not None:
            ready, _ = ray.wait([self._answer], timeout=0)
            if ready:
                self._known, self._answer = self._read(ready[0]), None
        elif self._clock() - self._asked_at >= LOOK_EVERY_S:
            self._asked_at = self._clock()
            self._answer = self._broker.slots.remote()
        return self._known

    def _read(self, answer: Any) -> Slots | None:
        try:
            slots = ray.get(answer)
        except ray.exceptions.RayError:  # the table does without; the search itself says what happened
            return None
        return Slots(
            up=len(slots),
            busy=sum(bool(slot["busy"]) for slot in slots.values()),
            further=sum(int(slot["lanes"]) - 1 for slot in slots.values()),
        )


class SearchProgress:
    """What the search tells people, from the callbacks of Tune."""

    def __init__(
        self, board: SearchBoard, watch: SlotWatch, show: Callable[[], None], say: Callable[[str], None]
    ) -> None:
        """`show` says what is due to be said, `say` one line at once."""
        self._board = board
        self._watch = watch
        self._show = show
        self._say = say
        self._jobs: dict[str, TrainJob] = {}
        self._warned: set[str] = set()

    def started(self, trial: TuneTrial, job: TrainJob) -> None:
        """A trial starts or goes on."""
        self._jobs[trial.trial_id] = job
        self._board.started(trial, job)

    def reported(self, trial_id: str, message: Message) -> None:
        """An epoch of Tune's trial of that id; a mask that keeps under 1 % is told once per student."""
        self._board.reported(trial_id, message)
        trial = self._jobs[trial_id].trial
        warning = mask_warning(trial, message)
        if warning is not None and trial.trial_id not in self._warned:
            self._warned.add(trial.trial_id)
            self._say(warning)

    def ended(self, trial_id: str, status: str) -> None:
        """Tune's trial of that id is completed, pruned or failed."""
        self._board.ended(trial_id, status)

    def tick(self) -> Slots | None:
        """To be called often, also while nothing happens; the slots that are up, as far as is known."""
        self._board.slots = self._watch.look()
        self._show()
        return self._board.slots


@contextmanager
def search_progress(
    console: Console, broker: Any, *, trials: int, epochs: int, slots: int
) -> Iterator[SearchProgress]:
    """The progress of one search of `trials` trials with at most `epochs` epochs each."""
    board = SearchBoard(trials=trials, epochs=epochs, slots=slots, clock=console.clock)
    with console.live(board) as show:
        yield SearchProgress(board, SlotWatch(broker, console.clock), show, console.info)
