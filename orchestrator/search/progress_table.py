"""How far a search is: a live table on a terminal, one plain line elsewhere."""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderResult
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.search.board_words import SEARCH, Student, Words
from orchestrator.terminal.formatting import clock_time, counted, duration, plain_percent
from trainables.config.metrics import RankBy, improves
from trainables.slots.messages import Message, TrainJob

STATUSES: Final = ("completed", "pruned", "failed")

# Beside the rows of trials: bar, head of the table, words on trials left out, last two lines, the prompt.
_LINES_AROUND: Final = 8
_FEWEST_ROWS: Final = 3
# Enough to smooth over students of different sizes, few enough to follow a cluster that changes.
_EPOCHS_REMEMBERED: Final = 64
# Fewer tell how slots came up one after the other, and not how fast they are.
_FEWEST_FOR_PACE: Final = 8


class TuneTrial(Protocol):
    """What Tune knows of a trial."""

    trial_id: str
    status: str
    """`RUNNING` while a proxy follows it; a scheduler may pause it."""


@dataclass(frozen=True)
class Slots:
    """The slots that are up, how many of them have a job, and how many students they train at once."""

    up: int
    busy: int
    further: int = 0
    """Students that they can train beside one each."""

    @property
    def at_once(self) -> int:
        """Students that can be in training."""
        return self.up + self.further


@dataclass
class _Row:
    """A trial that has not ended."""

    trial: TuneTrial
    student: Student
    epoch: int = 0
    last: float | None = None
    best: float | None = None
    images_per_s: float = 0.0
    heard_at: float | None = None

    @property
    def is_running(self) -> bool:
        return self.trial.status == "RUNNING"


class SearchBoard:
    """What is known of a search, fed by the driver's thread and drawn by another one.

    Students are followed by the figure that ranks them, a fraction in [0, 1]; times are seconds of `clock`.
    Trials count as Tune's proposals: two that are one student count twice, since the budget does so too.
    """

    def __init__(
        self,
        *,
        trials: int,
        epochs: int,
        slots: int,
        clock: Callable[[], float] = time.monotonic,
        words: Words = SEARCH,
    ) -> None:
        """`epochs` are the most that a trial can have; `slots` those that were planned, 0 if not known."""
        self.slots: Slots | None = None
        self.trials = trials
        """How many there are to be."""
        self._words_for = words
        self._epochs = epochs
        self._planned = slots
        self._clock = clock
        self._began_at = clock()
        self._lock = threading.RLock()
        self._rows: dict[str, _Row] = {}
        self._ended: Counter[str] = Counter()
        self._epoch_s: deque[float] = deque(maxlen=_EPOCHS_REMEMBERED)
        self._told_at: deque[float] = deque(maxlen=_EPOCHS_REMEMBERED)
        self._best: tuple[float, str] | None = None
        self._rank_by = RankBy.ACCURACY

    def started(self, trial: TuneTrial, job: TrainJob) -> None:
        """A trial starts, or goes on after a pause; with another job it is another student."""
        spec = job.trial
        self.follow(
            trial, Student(job.job_id, spec.objective.name, spec.training.epochs, rank_by=spec.rank_by)
        )

    def follow(self, trial: TuneTrial, student: Student) -> None:
        """The same for whoever has no job, but knows the student."""
        with self._lock:
            row = self._rows.get(trial.trial_id)
            if row is None or row.student != student:
                row = _Row(trial, student)
                self._rows[trial.trial_id] = row
                self._rank_by = student.rank_by
            row.trial, row.heard_at = trial, None

    def resumed(self) -> None:
        """The search goes on after a break, which is no part of its time or its pace."""
        with self._lock:
            self._began_at = self._clock()
            self._told_at.clear()
            for row in self._rows.values():
                row.heard_at = None

    def reported(self, trial_id: str, message: Message) -> None:
        """An epoch of a trial that started."""
        with self._lock:
            row = self._rows[trial_id]
            now = self._clock()
            row.epoch = max(row.epoch, message.epoch)
            row.images_per_s = row.images_per_s if message.images_per_s is None else message.images_per_s
            if message.seconds > 0:
                # What an earlier run heard comes at once: such an epoch tells its own seconds only.
                waited_s = 0.0 if row.heard_at is None else now - row.heard_at
                self._epoch_s.append(max(message.seconds, waited_s))
            row.heard_at = now
            self._told_at.append(now)
            if (figure := message.figure(row.student.rank_by)) is not None:
                row.last = figure
                if improves(figure, row.best):
                    row.best = figure
                if improves(figure, self._best[0] if self._best else None):
                    self._best = figure, row.student.name

    def ended(self, trial_id: str, status: str) -> None:
        """A trial is over: completed, pruned or failed."""
        with self._lock:
            self._rows.pop(trial_id, None)
            self._ended[status] += 1

    @property
    def best(self) -> dict[str, float | str] | None:
        """The best student so far, and its figure, a fraction."""
        with self._lock:
            return None if self._best is None else {"trial": self._best[1], "figure": self._best[0]}

    def left_s(self) -> float | None:
        """At most so many seconds are left, if every trial trains to its end; none before the first epoch.

        Graham's bound for jobs that are taken from a list (1969), all others shared among the slots and then
        the longest; or, where trials are so short that their change takes longer, what is owed at the pace at
        which epochs came.
        """
        with self._lock:
            if not self._epoch_s:
                return None
            epoch_s, now = statistics.fmean(self._epoch_s), self._clock()
            owed_s = [
                max((row.student.epochs - row.epoch) * epoch_s - (now - (row.heard_at or now)), 0.0)
                for row in self._rows.values()
            ]
            unstarted = max(self.trials - self._ended.total() - len(owed_s), 0)
            slots = (self.slots.at_once if self.slots else 0) or self._planned or self._running or 1
            longest_s = max([*owed_s, self._epochs * epoch_s if unstarted else 0.0])
            if unstarted == 0 and len(owed_s) <= slots:
                return longest_s
            all_s = sum(owed_s) + unstarted * self._epochs * epoch_s
            return max((all_s - longest_s) / slots + longest_s, all_s / epoch_s * self._pace_s(now))

    def _pace_s(self, now: float) -> float:
        """Seconds from one epoch to the next, of whichever trial; 0 while that cannot be told."""
        told = len(self._told_at)
        return (now - self._told_at[0]) / (told - 1) if told >= _FEWEST_FOR_PACE else 0.0

    def line(self) -> str:
        """All of it in short."""
        with self._lock:
            parts = [
                f"{self._words_for.title}: {self._ended.total():,}/{self.trials:,} trials{self._endings()}"
            ]
            parts += self._best_so_far()
            if self._is_over:
                parts.append(f"took {duration(self._clock() - self._began_at)}")
                return ", ".join(parts)
            if self.slots is not None:
                parts.append(counted(self.slots.up, "slot") if self.slots.up else "no slot is up yet")
            return ", ".join([*parts, *self._pace()])

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        """The live table, as high as the terminal allows."""
        with self._lock:
            yield self._bar()
            if any(row.is_running for row in self._rows.values()):
                yield from self._table(max(console.height - _LINES_AROUND, _FEWEST_ROWS))
            yield Text(", ".join(self._words()), overflow="fold")

    @property
    def _running(self) -> int:
        return sum(row.is_running for row in self._rows.values())

    @property
    def _is_over(self) -> bool:
        return self._ended.total() >= self.trials

    def _best_so_far(self) -> list[str]:
        """The best student, and what its figure is of where that is not accuracy."""
        if self._best is None:
            return []
        kind = f" {self._rank_by.label}" if self._rank_by.is_of_features else ""
        return [f"best {self._best[1]} {plain_percent(self._best[0])}{kind}"]

    def _endings(self) -> str:
        counts = [f"{self._ended[status]:,} {status}" for status in STATUSES if self._ended[status]]
        return f" ({', '.join(counts)})" if counts else ""

    def _pace(self) -> list[str]:
        images_per_s = sum(row.images_per_s for row in self._rows.values() if row.is_running)
        parts = [f"{images_per_s:,.0f} images/s"] if images_per_s else []
        if (left_s := self.left_s()) is not None:
            parts.append(f"at most {duration(left_s)} left")
        return parts

    def _bar(self) -> Table:
        grid = Table.grid(padding=(0, 1))
        ended = self._ended.total()
        text = f"{ended:,}/{self.trials:,} trials{self._endings()}"
        bar = ProgressBar(total=self.trials, completed=ended, width=20)
        grid.add_row(
            f"[bold]{escape(self._words_for.title)}[/]",
            bar,
            text,
            f"[cyan]{clock_time(self._clock() - self._began_at)}[/]",
        )
        return grid

    def _table(self, most: int) -> RenderResult:
        running = [row for row in self._rows.values() if row.is_running]
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("trial", no_wrap=True, min_width=17)
        table.add_column("objective", no_wrap=True)
        for name in ("epoch", "last", "best", "images/s"):
            table.add_column(name, justify="right", no_wrap=True, min_width=8)
        for row in running[:most]:
            table.add_row(
                escape(row.student.name),
                escape(row.student.objective),
                f"{row.epoch}/{row.student.epochs}",
                plain_percent(row.last),
                plain_percent(row.best),
                f"{row.images_per_s:,.0f}" if row.images_per_s else "-",
            )
        yield table
        if len(running) > most:
            yield Text(f"and {len(running) - most:,} more running trials", style="dim")

    def _words(self) -> list[str]:
        parts = self._best_so_far()
        if self._is_over:
            return parts
        running = self._running
        parts.append(f"{running:,} running")
        if waiting := len(self._rows) - running:
            parts.append(f"{waiting:,} {self._words_for.waiting}")
        if self.slots is not None:
            up = f"{counted(self.slots.up, 'slot')} up, {self.slots.busy:,} busy"
            at_once = f", for {self.slots.at_once:,} students at once" if self.slots.further else ""
            parts.append(f"{up}{at_once}" if self.slots.up else "no slot is up yet")
        return [*parts, *self._pace()]
