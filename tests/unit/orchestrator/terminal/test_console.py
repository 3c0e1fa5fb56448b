"""Output: plain lines where nobody watches, a bar on a terminal, and JSON alone on standard output."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest

from orchestrator.terminal.console import QUIET_S, Console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_with_json_all_that_is_for_people_goes_to_standard_error() -> None:
    out, err = io.StringIO(), io.StringIO()
    console = Console(json_only=True, out=out, err=err)
    console.stage("teacher")
    console.info("loss [red]1[/red]")
    console.table("students", ("name", "accuracy"), [("a", 0.5)])
    with console.progress("search", 2) as progress:
        progress.update(1)
    console.result({"champion": "a"})
    assert json.loads(out.getvalue()) == {"champion": "a"}
    assert err.getvalue().splitlines() == [
        "== teacher",
        "loss [red]1[/red]",
        "students",
        "name  accuracy",
        "a     0.5",
        "search: 1/2",
    ]


def test_without_json_a_result_prints_nothing() -> None:
    out = io.StringIO()
    Console(out=out).result({"champion": "a"})
    assert out.getvalue() == ""


def test_plain_progress_speaks_at_most_every_half_minute_and_at_the_end() -> None:
    ticks = _ticks(10.0)
    out = io.StringIO()
    with Console(out=out, clock=lambda: next(ticks)).progress("search", 9) as progress:
        for done in range(1, 10):
            progress.update(done, f"best {done}")
    lines = out.getvalue().splitlines()
    assert lines[-1] == "search: 9/9, best 9"
    assert 2 <= len(lines) <= 9 * 10 / QUIET_S + 1


def test_progress_that_had_nothing_to_tell_stays_silent() -> None:
    out = io.StringIO()
    with Console(out=out).progress("cache"):
        pass
    assert out.getvalue() == ""


def test_an_exception_passes_through_progress() -> None:
    with pytest.raises(ValueError, match="broken"), Console(out=io.StringIO()).progress("cache") as progress:
        progress.update(1)
        raise ValueError("broken")


def test_a_terminal_gets_a_bar_and_text_is_never_markup() -> None:
    out = Terminal()
    console = Console(out=out)
    console.info("[bold]as it is[/bold]")
    with console.progress("search [3]", 4) as progress:
        progress.update(4, "best [90 %]")
    assert "[bold]as it is[/bold]" in out.getvalue()
    assert "search [3]" in out.getvalue()
    assert "4/4" in out.getvalue()
    assert "best [90 %]" in out.getvalue()


def _ticks(step: float) -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += step


STUDENTS = (
    ("student", "objective", "test gain over CE, points (95 %)", "hyper-parameters"),
    [
        ("teacher", "", "", ""),
        (
            "finalist 1 (champion)",
            "crld",
            "+4.39 [+3.37, +5.40]",
            "temperature 5, within_weight 0.808, x 0.3",
        ),
        ("control", "ce", "", ""),
    ],
)


@pytest.mark.parametrize("columns", [60, 80])
def test_a_table_fits_a_narrow_terminal_and_loses_nothing(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    out = Terminal()
    Console(out=out).table("students", *STUDENTS)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= columns
    words = " ".join(out.getvalue().split())
    for row in STUDENTS[1]:
        assert all(str(cell) in words for cell in row)
    for name in STUDENTS[0][1:]:
        assert name in words


def test_a_row_that_is_too_wide_is_a_block_with_a_line_for_each_column(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    out = Terminal()
    Console(out=out).table("students", *STUDENTS)
    assert out.getvalue().splitlines() == [
        "students",
        "teacher",
        "finalist 1 (champion)",
        "  objective                         crld",
        "  test gain over CE, points (95 %)  +4.39 [+3.37, +5.40]",
        "  hyper-parameters                  temperature 5,",
        "                                    within_weight 0.808, x",
        "                                    0.3",
        "control",
        "  objective                         ce",
    ]


def test_a_table_that_fits_stays_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Terminal()
    monkeypatch.setenv("COLUMNS", "80")
    Console(out=out).table("students", ("name", "accuracy"), [("a", 0.5)])
    assert "│ a    │ 0.5      │" in out.getvalue()
    piped = io.StringIO()
    Console(out=piped).table("students", *STUDENTS)
    assert len(piped.getvalue().splitlines()) == 5
