"""`report.html`: one self-contained page about a run, which opens without a server or a network."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

import plotly.io
from plotly.offline import get_plotlyjs

from orchestrator.records.bad_outcomes import bad_outcomes
from orchestrator.records.events import Event
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.ranked_figures import teachers_test
from orchestrator.records.selection import Figures, PairedDifference
from orchestrator.records.student_figures import Finalist, Students
from orchestrator.records.students_table import (
    comparison,
    control_name_of,
    named_controls,
    speed_up_text,
    students_table,
)
from orchestrator.records.summary import Champion, Summary, champions_group, is_champion
from orchestrator.reports.charts import cost_chart, curves_chart
from orchestrator.reports.html_template import PAGE, STYLE
from orchestrator.reports.parallel_coordinates import search_chart
from orchestrator.reports.teacher_section import teacher_facts
from orchestrator.terminal.formatting import percent, short_parameters
from trainables.local_files import replace_text

NO_FIGURES: Final[Figures] = MappingProxyType({})


def write_report(
    path: Path,
    summary: Summary,
    records: Sequence[TrialRecord],
    events: Iterable[Event],
    *,
    figures: Figures = NO_FIGURES,
) -> None:
    """Write the page at once.

    `records` are the trials of the search, `events` the ledger's (those of kind `epoch` are used), and
    `figures` the costs by trial id, which put the search's trials into the chart of costs.

    Raises:
        StillhouseError: the file cannot be written.
    """
    replace_text(path, report_html(summary, records, events, figures=figures))


def report_html(
    summary: Summary,
    records: Sequence[TrialRecord],
    events: Iterable[Event],
    *,
    figures: Figures = NO_FIGURES,
) -> str:
    """The page as text; every word of the user's is escaped."""
    champion = champions_group(summary)
    search = search_chart(records)
    return Template(PAGE).substitute(
        style=STYLE,
        plotly=get_plotlyjs(),
        experiment=_text(summary.experiment),
        tiles=_tiles(summary, champion),
        verdict=_text(verdict(summary)),
        students=_students(summary),
        comparison=_text(" ".join(comparison(summary))),
        curse=_text(_search_scores(summary)),
        devices=_text(_devices(summary)),
        test_split=_text(_test_split(summary)),
        cost=_figure("cost", cost_chart(summary, records, figures)),
        curves=_figure("curves", curves_chart(summary, events)),
        counts=_text(_counts(records)),
        search=_figure("search", search)
        if search is not None
        else "<p>No hyper-parameter took two values.</p>",
        teacher=_section("Teacher and cache", teacher_facts(summary)),
        exports=_exports(summary),
        seconds=_facts({stage: f"{seconds:.1f} s" for stage, seconds in summary.seconds.items()}),
        mlflow=_mlflow(summary),
    )


def verdict(summary: Summary) -> str:
    """What may be said of the champion's gain, and what speaks against the run's figures."""
    gain = champions_group(summary).test_gain
    holds = ""
    if gain.low is not None and gain.low > 0:
        holds = f"The gain over the control holds over {gain.n} seeds: its 95 % interval lies above zero."
    return " ".join(filter(None, (holds, *bad_outcomes(summary))))


def _tiles(summary: Summary, champion: Finalist) -> str:
    teacher, own = summary.teacher, summary.champion
    kept = ""
    if reached := teachers_test(summary):
        kept = f"; {100 * own.test_accuracy / reached:.1f} % of the teacher's"
    seeds = _plural(len(champion.seeds), "seed")
    spread = seeds if champion.test_std is None else f"± {percent(champion.test_std)} over {seeds}"
    tiles = (
        ("Champion", own.objective, short_parameters(own.hyper_parameters) or "the paper's defaults"),
        (f"Test {summary.rank_by.label}", f"{percent(own.test_accuracy)} %", f"{spread}{kept}"),
        (
            f"Gain over {control_name_of(summary, champion)} (CE)",
            f"{100 * champion.test_gain.mean:+.2f} points",
            _interval(champion.test_gain),
        ),
        (
            "Parameters",
            f"{own.params:,}",
            _times_as_many(teacher.params, own.params) if teacher else "",
        ),
        ("Latency", f"{own.latency_ms:.3f} ms", _latency_note(own) + _speed_up(summary, champion)),
        ("Size", f"{own.size_bytes / 1024:,.0f} KiB", "safetensors"),
    )
    return "".join(
        f'<div class="tile"><span>{_text(name)}</span><strong>{_text(value)}</strong>'
        f"<small>{_text(note)}</small></div>"
        for name, value, note in tiles
    )


def _latency_note(champion: Champion) -> str:
    p95 = "" if champion.latency_p95_ms is None else f"; p95 {champion.latency_p95_ms:.3f} ms"
    device = "" if champion.latency_device is None else f"; {champion.latency_device}"
    return f"one image, median{p95}{device}"


def _speed_up(summary: Summary, champion: Finalist) -> str:
    teacher, times = summary.teacher, speed_up_text(summary, champion)
    return f"; teacher: {teacher.latency_ms:.3f} ms, speed-up {times}" if teacher and times else ""


def _devices(summary: Summary) -> str:
    """What latencies were measured on; empty where no record says."""
    groups: dict[str, Students] = dict(named_controls(summary))
    groups |= {f"finalist {number}": group for number, group in enumerate(summary.finalists, start=1)}
    names: dict[str, list[str]] = {}
    for name, group in groups.items():
        if group.latency_device is not None:
            names.setdefault(group.latency_device, []).append(name)
    if not names:
        return ""
    head = "A latency is that of one image at a time, the median and the 95th percentile (p95)"
    if len(names) == 1:
        return f"{head}, on {next(iter(names))}."
    each = "; ".join(f"{device}: {', '.join(measured)}" for device, measured in names.items())
    return f"{head}. Latencies of different devices do not compare. {each}."


def _times_as_many(teacher: int | None, own: int) -> str:
    return (
        f"teacher: {teacher:,}, {teacher / max(own, 1):.1f} times as many" if teacher else "teacher: unknown"
    )


def _interval(gain: PairedDifference) -> str:
    if gain.low is None or gain.high is None:
        return "on the test split; one seed, no interval"
    return f"on the test split; 95 % interval {100 * gain.low:+.2f} to {100 * gain.high:+.2f}"


def _students(summary: Summary) -> str:
    columns, rows = students_table(summary)
    above = len(rows) - len(summary.finalists)
    champions = [False] * above + [is_champion(summary, finalist) for finalist in summary.finalists]
    head = "".join(f"<th>{_text(column)}</th>" for column in columns)
    body = "".join(
        f"<tr{' class=champion' if champion else ''}>"
        + "".join(f"<td>{_text(cell)}</td>" for cell in row)
        + "</tr>"
        for row, champion in zip(rows, champions, strict=True)
    )
    return f"<table class=students><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _search_scores(summary: Summary) -> str:
    """What each finalist scored when the search chose it, beside its mean: the winner's curse, if any."""
    told = []
    for number, finalist in enumerate(summary.finalists, start=1):
        scores = [
            trial.selection_accuracy
            for trial in summary.trials
            if trial.objective == finalist.objective
            and trial.hyper_parameters == finalist.hyper_parameters
            and trial.selection_accuracy is not None
        ]
        if scores:
            told.append(
                f"finalist {number} scored {percent(max(scores))} % in the search and "
                f"{percent(finalist.selection_mean)} % as a mean of {len(finalist.seeds)} seeds"
            )
    if not told:
        return ""
    return (
        f"Chosen on the selection split, where the best of many looks better than it is: {'; '.join(told)}."
    )


def _test_split(summary: Summary) -> str:
    groups = len(summary.finalists)
    students = sum(len(finalist.trials) for finalist in summary.finalists)
    controls = [control for _, control in named_controls(summary)]
    without = sum(len(control.trials) for control in controls)
    is_tested = summary.teacher is not None and summary.teacher.test_accuracy is not None
    teacher = ", and the teacher" if is_tested else ""
    return (
        f"The search, early stopping, the choice of the finalists and that of the champion saw the selection "
        f"split only, and so did the choice between recipes of a control. The test split was read once, "
        f"after those choices, by {_plural(students, 'student')} of {_plural(groups, 'finalist')}, "
        f"{_plural(without, 'student')} of {_plural(len(controls), 'control')}{teacher}. "
        f"Every accuracy is a mean over seeds ± the sample's standard deviation; a gain is the mean of the "
        f"differences to the finalist's own control with the same seeds, with its 95 % t-interval."
    )


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _counts(records: Sequence[TrialRecord]) -> str:
    states = {state: sum(r.status == state for r in records) for state in ("completed", "pruned", "failed")}
    counts = ", ".join(f"{count} {state}" for state, count in states.items() if count)
    return f"{len(records)} trials: {counts or 'none ended'}."


def _exports(summary: Summary) -> str:
    champion, label = summary.champion, summary.rank_by.label
    rows = "".join(
        f"<tr><td>{_text(name)}</td><td><code>{_text(file.path)}</code></td>"
        f"<td>{file.max_abs_difference:.2g}</td></tr>"
        for name, file in champion.exports.items()
    )
    return (
        f"<p>Weights of trial <code>{_text(champion.trial_id)}</code>, the seed with the best selection "
        f"{label}; model card: <code>{_text(champion.model_card)}</code>.</p>"
        f"<table><thead><tr><th>format</th><th>file</th><th>largest difference of a logit</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def _mlflow(summary: Summary) -> str:
    place = summary.mlflow
    model = (
        f"{place.registered_model} version {place.version}" if place.registered_model else "not registered"
    )
    facts = _facts({"tracking": place.tracking_uri, "run": place.parent_run_id or "", "model": model})
    # A link only to a web page: an address comes from a file, and `javascript:` is one as well.
    if place.ui_url and urlsplit(place.ui_url).scheme in ("http", "https"):
        return facts + f'<p><a href="{_text(place.ui_url)}" rel="noreferrer">Open the run in MLflow</a></p>'
    return facts


def _section(head: str, facts: Mapping[str, str]) -> str:
    return f"<section><h2>{_text(head)}</h2>{_facts(facts)}</section>" if facts else ""


def _facts(facts: Mapping[str, str]) -> str:
    rows = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in facts.items())
    return f"<dl>{rows}</dl>"


def _figure(name: str, figure: Any) -> str:
    return str(
        plotly.io.to_html(
            figure,
            full_html=False,
            include_plotlyjs=False,
            div_id=f"chart-{name}",
            default_height=f"{figure.layout.height}px",
            config={"displayModeBar": False},
        )
    )


def _text(value: str) -> str:
    return html.escape(value, quote=True)
