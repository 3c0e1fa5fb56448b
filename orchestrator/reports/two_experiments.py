"""Two experiments side by side, from their ledgers and summaries, and what differs in their files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.records.ledger import Ledger
from orchestrator.records.selection import PairedDifference, paired_difference
from orchestrator.records.student_figures import Finalist
from orchestrator.records.summary import Summary, champions_group
from orchestrator.records.tables.more_columns import gain_text
from orchestrator.reports.trial_table import ranked, searches_of
from orchestrator.terminal.formatting import clock_time, counted, percent, short_parameters
from trainables.config import Role
from trainables.config.base import Config

NOT_SET: Final = "(not set)"
LONGEST: Final = 60
"""Characters of a value in the table of differences; `--json` has all of them."""
Facts = dict[str, Any]
Cell = Callable[[Facts], str]


@dataclass(frozen=True)
class OneExperiment:
    """What is known of one of the two."""

    name: str
    experiment: Config
    space: Config
    ledger: Ledger
    summary: Summary | None
    """None where its run is not over."""


def facts_of(one: OneExperiment) -> Facts:
    """What one of them found, flat; accuracies are fractions. Without a summary there is no champion."""
    searches = searches_of(one.ledger)
    latest = one.ledger.trials(search=searches[-1], role=Role.SEARCH) if searches else []
    best = next((record for rank, record in ranked(latest) if rank is not None), None)
    found: Facts = {
        "state": "not over" if one.summary is None else "finished",
        "trials": dict(Counter(record.status for record in latest)),
        "best_trial": best and best.trial,
        "best_trial_selection": best and best.score,
        "trial_seconds": sum(record.seconds for record in one.ledger.trials()),
    }
    return found if one.summary is None else found | _of_summary(one.summary)


def _of_summary(summary: Summary) -> Facts:
    group, champion, teacher = champions_group(summary), summary.champion, summary.teacher
    return {
        "rank_by": str(summary.rank_by),
        "champion": champion.trial_id,
        "objective": champion.objective,
        "hyper_parameters": champion.hyper_parameters,
        "seeds": len(group.seeds),
        "selection_accuracy": group.selection_mean,
        "selection_std": group.selection_std,
        "test_accuracy": group.test_mean,
        "test_std": group.test_std,
        "test_gain": None if group.is_own_control else group.test_gain.plain(),
        "params": champion.params,
        "size_bytes": champion.size_bytes,
        "latency_ms": champion.latency_ms,
        "latency_device": champion.latency_device,
        "teacher_params": teacher and teacher.params,
        "teacher_test_accuracy": teacher and teacher.test_accuracy,
        "seconds": sum(summary.seconds.values()),
    }


def file_differences(one: OneExperiment, other: OneExperiment) -> dict[str, list[Any]]:
    """By dotted name both values of what differs in files and options; names and folders are left out."""
    return dict(_differences(_described(one), _described(other)))


def _described(one: OneExperiment) -> dict[str, Any]:
    left_out = {"name", "out", "pairs"}
    plain = {name: value for name, value in one.experiment.plain().items() if name not in left_out}
    described = {name: value for name, value in one.space.plain().items() if name != "name"}
    return {**plain, "space": {"name": plain.get("space"), **described}}


def _differ(first: Any, second: Any) -> bool:
    """Whether two values say different things: what is not set and what is none say the same."""
    nothing: tuple[Any, ...] = (None, NOT_SET, {})
    return bool(first != second) and not (first in nothing and second in nothing)


def _differences(
    first: Mapping[str, Any], second: Mapping[str, Any], before: str = ""
) -> Iterator[tuple[str, list[Any]]]:
    """By dotted name; a section that one of them lacks, or has empty, is one value."""
    for name in dict.fromkeys((*first, *second)):
        pair = [first.get(name, NOT_SET), second.get(name, NOT_SET)]
        if all(isinstance(value, Mapping) and value for value in pair):
            yield from _differences(pair[0], pair[1], f"{before}{name}.")
        elif _differ(*pair):
            yield f"{before}{name}", pair


def gain_of_second(one: OneExperiment, other: OneExperiment) -> PairedDifference | None:
    """What the second champion's group gains on the test split over the first's, seed by seed.

    None where one of the two is not finished, or they have no seed, data or figure in common.
    """
    if one.summary is None or other.summary is None or one.summary.rank_by != other.summary.rank_by:
        return None
    if not has_same_data(one, other):
        return None
    first, second = champions_group(one.summary), champions_group(other.summary)
    if not set(first.seeds) & set(second.seeds):
        return None
    return paired_difference(_tests_by_seed(second), _tests_by_seed(first))


def has_same_data(one: OneExperiment, other: OneExperiment) -> bool:
    """Whether both files name the same data, split with the same seed."""
    return not any(name.partition(".")[0] in ("data", "seed") for name in file_differences(one, other))


def _tests_by_seed(finalist: Finalist) -> dict[int, float]:
    return dict(zip(finalist.seeds, finalist.test_accuracies, strict=True))


def comparison_rows(first: Facts, second: Facts) -> list[tuple[str, str, str]]:
    """Rows for a terminal: what is compared, and both values, rounded; what neither has is left out."""
    rows = [(label, cell(first), cell(second)) for label, cell in _CELLS]
    return [row for row in rows if row[1] or row[2]]


def difference_rows(differences: Mapping[str, list[Any]]) -> list[tuple[str, str, str]]:
    """What differs in the files, as text."""
    return [(name, _as_text(first), _as_text(second)) for name, (first, second) in differences.items()]


def sentences(one: OneExperiment, other: OneExperiment, names: tuple[str, str]) -> list[str]:
    """What may be concluded from the rows, and what may not."""
    told = []
    if not has_same_data(one, other):
        told.append(
            "The files name different data, or split it with different seeds: accuracies of one say nothing "
            "of the other."
        )
    gain = gain_of_second(one, other)
    if gain is not None:
        told.append(
            f"Over {counted(gain.n, 'common seed')} the champion of {names[1]} gains {gain_text(gain)} "
            f"points on the test split over that of {names[0]}; each was chosen by a selection split."
        )
    unfinished = [name for name, each in zip(names, (one, other), strict=True) if each.summary is None]
    if unfinished:
        told.append(f"Not over, so without a champion: {', '.join(unfinished)}.")
    return told


def _as_text(value: Any) -> str:
    if value is None:
        return NOT_SET
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _gain(facts: Facts) -> str:
    gain = facts.get("test_gain")
    return "" if gain is None else gain_text(PairedDifference.from_plain(gain))


def _latency(facts: Facts) -> str:
    if "latency_ms" not in facts:
        return ""
    device = facts["latency_device"]
    return f"{facts['latency_ms']:.3f}" + (f" ({device})" if device else "")


def _accuracy(mean: str, std: str | None = None) -> Cell:
    def cell(facts: Facts) -> str:
        value = facts.get(mean)
        return "" if value is None else percent(value, facts.get(std) if std else None)

    return cell


def _number(name: str) -> Cell:
    return lambda facts: "" if facts.get(name) is None else f"{facts[name]:,}"


def _text(name: str) -> Cell:
    return lambda facts: str(facts.get(name) or "")


def _time(name: str) -> Cell:
    return lambda facts: clock_time(facts[name]) if facts.get(name) else ""


def _trials(facts: Facts) -> str:
    total = sum(facts["trials"].values())
    parts = ", ".join(f"{count} {status}" for status, count in sorted(facts["trials"].items()))
    return f"{total} ({parts})" if total else "0"


def _parameters(facts: Facts) -> str:
    searched = facts.get("hyper_parameters") or {}
    return short_parameters({name: value for name, value in searched.items() if name != "objective"})


_CELLS: Final[tuple[tuple[str, Cell], ...]] = (
    ("state", _text("state")),
    ("ranked by", _text("rank_by")),
    ("champion", _text("champion")),
    ("objective", _text("objective")),
    ("hyper-parameters", _parameters),
    ("selection, %", _accuracy("selection_accuracy", "selection_std")),
    ("test, %", _accuracy("test_accuracy", "test_std")),
    ("test gain over its control, points (95 %)", _gain),
    ("params", _number("params")),
    ("size, bytes", _number("size_bytes")),
    ("latency, ms", _latency),
    ("teacher's params", _number("teacher_params")),
    ("teacher's test, %", _accuracy("teacher_test_accuracy")),
    ("trials", _trials),
    ("best trial of the search", _text("best_trial")),
    ("its selection, %", _accuracy("best_trial_selection")),
    ("time of all stages", _time("seconds")),
    ("time of all trainings", _time("trial_seconds")),
)
