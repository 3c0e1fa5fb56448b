"""What people see: rich on a terminal, plain lines elsewhere; `--json` leaves standard output to programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol, TextIO

import rich.progress
from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderResult
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from orchestrator.terminal.masking import data_without_secrets, without_secrets
from orchestrator.terminal.table_layout import blocks, column_widths

FRAME: Final = 3
"""Characters of a table's frame beside each cell."""
QUIET_S: Final = 30.0
"""Least time between two plain lines about one piece of work."""


class Progress(Protocol):
    """How far one piece of work is."""

    def update(self, done: int, note: str = "", *, total: int | None = None) -> None:
        """`done` units are finished; `note` says how it goes; `total` where it is known only now."""
        ...


class View(Protocol):
    """Something that changes while people watch it."""

    def line(self) -> str:
        """All of it in short."""
        ...

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        """The whole picture; asked for from another thread."""
        ...


class Console:
    """The output of one command; secrets in addresses are left out of all of it."""

    def __init__(
        self,
        *,
        json_only: bool = False,
        out: TextIO | None = None,
        err: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """With `json_only`, all that is for people goes to standard error."""
        self.json_only = json_only
        self._out = out or sys.stdout
        self._human = (err or sys.stderr) if json_only else self._out
        self.clock = clock
        self._rich = RichConsole(file=self._human, highlight=False, soft_wrap=True)

    @property
    def is_terminal(self) -> bool:
        """Whether a person watches."""
        return self._rich.is_terminal

    def info(self, text: str) -> None:
        """One line, as it is."""
        if self.is_terminal:
            self._rich.print(_shown(text))
        else:
            self._write(text)

    def stage(self, name: str) -> None:
        """The head of a stage."""
        if self.is_terminal:
            self._rich.print(f"[bold cyan]{_shown(name)}[/]")
        else:
            self._write(f"== {name}")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Rows under their columns; where no person watches, aligned with two spaces or more between them.

        Where lines would be longer than the terminal is wide, each row is a block of its own: the first cell,
        and below it a line for each other column.
        """
        title = without_secrets(title)
        columns, *rows = [[without_secrets(str(cell)) for cell in row] for row in (columns, *rows)]
        widths = column_widths(columns, rows)
        if self.is_terminal and sum(widths) + FRAME * len(widths) + 1 > self._rich.width:
            self._write(title)
            for line in blocks(columns, rows, self._rich.width):
                self._write(line)
            return
        if self.is_terminal:
            table = Table(title=escape(title), title_justify="left")
            for column in columns:
                table.add_column(escape(column))
            for row in rows:
                table.add_row(*(escape(str(cell)) for cell in row))
            self._rich.print(table)
            return
        self._write(title)
        for cells in (columns, *rows):
            padded = (str(cell).ljust(width) for cell, width in zip(cells, widths, strict=True))
            self._write("  ".join(padded).rstrip())

    def result(self, data: Mapping[str, Any]) -> None:
        """What a program reads: one JSON document on standard output, with `json_only`; else nothing."""
        if self.json_only:
            self._out.write(json.dumps(data_without_secrets(data), indent=2, default=str) + "\n")
            self._out.flush()

    @contextmanager
    def progress(self, description: str, total: int | None = None) -> Iterator[Progress]:
        """How far one piece of work is: a live bar, or a plain line at most every 30 s and at the end."""
        if self.is_terminal:
            with _bar(self._rich) as bar:
                yield _LiveProgress(bar, bar.add_task(_shown(description), total=total, note=""))
            return
        plain = _PlainProgress(self._write, description, total, self.clock)
        yield plain
        plain.finish()

    @contextmanager
    def live(self, view: View) -> Iterator[Callable[[], None]]:
        """The view on a terminal, drawn anew twice a second; else its line every 30 s and at the end.

        Gives what is to be called often: there the line is written when it is due. However this ends, the
        terminal is left as it was found, with the last picture on it.
        """
        if self.is_terminal:
            with Live(view, console=self._rich, refresh_per_second=2):
                yield lambda: None
            return
        said_at = self.clock()

        def show() -> None:
            nonlocal said_at
            if self.clock() - said_at >= QUIET_S:
                said_at = self.clock()
                self._write(view.line())

        yield show
        self._write(view.line())

    def _write(self, text: str) -> None:
        self._human.write(without_secrets(text) + "\n")
        self._human.flush()


class _LiveProgress:
    def __init__(self, bar: rich.progress.Progress, task: rich.progress.TaskID) -> None:
        self._bar = bar
        self._task = task

    def update(self, done: int, note: str = "", *, total: int | None = None) -> None:
        self._bar.update(self._task, total=total, completed=done, note=_shown(note))


class _PlainProgress:
    def __init__(
        self, write: Callable[[str], None], description: str, total: int | None, clock: Callable[[], float]
    ) -> None:
        self._write = write
        self._description = description
        self._total = total
        self._clock = clock
        self._said_at = clock()
        self._unsaid: str | None = None

    def update(self, done: int, note: str = "", *, total: int | None = None) -> None:
        self._total = self._total if total is None else total
        of = "" if self._total is None else f"/{self._total:,}"
        self._unsaid = f"{self._description}: {done:,}{of}{f', {note}' if note else ''}"
        if self._clock() - self._said_at >= QUIET_S:
            self.finish()

    def finish(self) -> None:
        """Say what was not said yet."""
        if self._unsaid is not None:
            self._write(self._unsaid)
            self._said_at, self._unsaid = self._clock(), None


def _shown(text: str) -> str:
    return escape(without_secrets(text))


def _bar(console: RichConsole) -> rich.progress.Progress:
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TextColumn("{task.fields[note]}"),
        console=console,
    )
