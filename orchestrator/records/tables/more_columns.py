"""Columns of the table of students that are there where something is known to put in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from orchestrator.records.selection import PairedDifference
from orchestrator.records.student_figures import Finalist, Students
from orchestrator.terminal.formatting import percent

SEARCH_SCORE: Final = "in the search, %"
SMOOTHED: Final = "test gain over label smoothing, points (95 %)"
SAME_COMPUTE: Final = "test gain at the same compute, points (95 %)"
COMPUTE: Final = "compute, epochs of CE"
PEERS: Final = "its peers, selection %"
ENSEMBLE: Final = "with its peers as one, selection %"
SECONDS: Final = "seconds a trial"
_CHEAP: Final = 1.005
"""An epoch that computes less than so many of cross-entropy's is one of cross-entropy in the table."""

Row = tuple[str, ...]


def gain_text(gain: PairedDifference) -> str:
    """A gain in percentage points with its interval, or the word that there is none."""
    if gain.low is None or gain.high is None:
        return f"{100 * gain.mean:+.2f} (one seed)"
    return f"{100 * gain.mean:+.2f} [{100 * gain.low:+.2f}, {100 * gain.high:+.2f}]"


def with_more(
    columns: Row, rows: Sequence[Row], students: Sequence[Students]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The table with what else is known of students, before its last column.

    `students` are those of the last rows: controls and finalists. Rows above them stay empty there.
    """
    found = {name: [cell(each) for each in students] for name, cell in _CELLS.items()}
    if not any((each.compute_over_ce or 0) >= _CHEAP for each in students):
        del found[COMPUTE]
    shown = {name: cells for name, cells in found.items() if any(cells)}
    if not shown:
        return columns, list(rows)
    empty = [("",) * len(shown)] * (len(rows) - len(students))
    added: list[Row] = [*empty, *zip(*shown.values(), strict=True)]
    return (*columns[:-1], *shown, columns[-1]), [
        (*row[:-1], *more, row[-1]) for row, more in zip(rows, added, strict=True)
    ]


def with_search_scores(
    columns: Row, rows: Sequence[Row], finalists: Sequence[Finalist]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The table with what each finalist, of the last rows, scored in the search, before its mean over seeds.

    That score is of one seed and chose the finalist, so it looks better than the mean that confirms it.
    """
    scores = [finalist.search_score for finalist in finalists]
    if all(score is None for score in scores):
        return columns, list(rows)
    cells = [""] * (len(rows) - len(scores)) + ["" if s is None else percent(s) for s in scores]
    return (*columns[:2], SEARCH_SCORE, *columns[2:]), [
        (*row[:2], cell, *row[2:]) for row, cell in zip(rows, cells, strict=True)
    ]


def taken_together_text(finalists: Sequence[Finalist]) -> list[str]:
    """One sentence on the gains of several finalists; nothing where one alone has a gain."""
    named = [(number, f) for number, f in enumerate(finalists, start=1) if f.together is not None]
    if not named:
        return []
    parts = []
    for number, finalist in named:
        own = finalist.together
        if own is not None:
            gain, p = finalist.test_gain.mean, _p_text(own.p_holm)
            parts.append(
                f"finalist {number} {100 * gain:+.2f} [{100 * own.low:+.2f}, {100 * own.high:+.2f}] ({p})"
            )
    return [
        f"Test gains of {len(named)} finalists taken together, p by Holm, intervals that hold at once with "
        f"95 %: {', '.join(parts)}."
    ]


def _p_text(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p {p:.3f}"


def _over_smoothed(students: Students) -> str:
    if not isinstance(students, Finalist) or students.smoothed is None:
        return ""
    return gain_text(students.smoothed.test_gain)


def _gain(students: Students) -> str:
    if not isinstance(students, Finalist) or students.same_compute is None:
        return ""
    return gain_text(students.same_compute.test_gain)


def _compute(students: Students) -> str:
    return "" if students.compute_epochs is None else f"{students.compute_epochs:.1f}"


def _peers(students: Students) -> str:
    return "" if students.peers_selection_mean is None else percent(students.peers_selection_mean)


def _ensemble(students: Students) -> str:
    return "" if students.ensemble_selection_mean is None else percent(students.ensemble_selection_mean)


def _seconds(students: Students) -> str:
    return "" if students.seconds is None else f"{students.seconds:,.1f}"


_CELLS: Final[dict[str, Callable[[Students], str]]] = {
    SMOOTHED: _over_smoothed,
    SAME_COMPUTE: _gain,
    COMPUTE: _compute,
    PEERS: _peers,
    ENSEMBLE: _ensemble,
    SECONDS: _seconds,
}
