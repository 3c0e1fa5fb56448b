"""What the report tells of a finished run beside its charts: tiles, students, test split, files, MLflow."""

from __future__ import annotations

from urllib.parse import urlsplit

from orchestrator.records.bad_outcomes import bad_outcomes
from orchestrator.records.ranked_figures import teachers_test
from orchestrator.records.selection import PairedDifference
from orchestrator.records.student_figures import Finalist, Students
from orchestrator.records.summary import Champion, Summary, champions_group, is_champion
from orchestrator.records.tables.students_table import (
    control_name_of,
    named_controls,
    speed_up_text,
    students_table,
)
from orchestrator.reports.markup import fact_list, table, text, tiles
from orchestrator.terminal.formatting import counted, percent, short_parameters


def verdict(summary: Summary) -> str:
    """What may be said of the champion's gain, and what speaks against the run's figures."""
    gain = champions_group(summary).test_gain
    holds = ""
    if gain.low is not None and gain.low > 0:
        holds = f"The gain over the control holds over {gain.n} seeds: its 95 % interval lies above zero."
    return " ".join(filter(None, (holds, *bad_outcomes(summary))))


def champion_tiles(summary: Summary) -> str:
    """The champion in six figures."""
    champion = champions_group(summary)
    teacher, own = summary.teacher, summary.champion
    kept = ""
    if reached := teachers_test(summary):
        kept = f"; {100 * own.test_accuracy / reached:.1f} % of the teacher's"
    seeds = counted(len(champion.seeds), "seed")
    spread = seeds if champion.test_std is None else f"± {percent(champion.test_std)} over {seeds}"
    return tiles(
        (
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
    )


def _latency_note(champion: Champion) -> str:
    p95 = "" if champion.latency_p95_ms is None else f"; p95 {champion.latency_p95_ms:.3f} ms"
    device = "" if champion.latency_device is None else f"; {champion.latency_device}"
    return f"one image, median{p95}{device}"


def _speed_up(summary: Summary, champion: Finalist) -> str:
    teacher, times = summary.teacher, speed_up_text(summary, champion)
    return f"; teacher: {teacher.latency_ms:.3f} ms, speed-up {times}" if teacher and times else ""


def _times_as_many(teacher: int | None, own: int) -> str:
    return (
        f"teacher: {teacher:,}, {teacher / max(own, 1):.1f} times as many" if teacher else "teacher: unknown"
    )


def _interval(gain: PairedDifference) -> str:
    if gain.low is None or gain.high is None:
        return "on the test split; one seed, no interval"
    return f"on the test split; 95 % interval {100 * gain.low:+.2f} to {100 * gain.high:+.2f}"


def students(summary: Summary) -> str:
    """The table of students, the champion's row marked."""
    columns, rows = students_table(summary)
    above = len(rows) - len(summary.finalists)
    champions = [False] * above + [is_champion(summary, finalist) for finalist in summary.finalists]
    return table("Students", columns, rows, kind="students", marked=champions)


def devices(summary: Summary) -> str:
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


def search_scores(summary: Summary) -> str:
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


def test_split(summary: Summary) -> str:
    """Who saw the test split, and when."""
    groups = len(summary.finalists)
    trained = sum(len(finalist.trials) for finalist in summary.finalists)
    controls = [control for _, control in named_controls(summary)]
    without = sum(len(control.trials) for control in controls)
    is_tested = summary.teacher is not None and summary.teacher.test_accuracy is not None
    teacher = ", and the teacher" if is_tested else ""
    return (
        f"The search, early stopping, the choice of the finalists and that of the champion saw the selection "
        f"split only, and so did the choice between recipes of a control. The test split was read once, "
        f"after those choices, by {counted(trained, 'student')} of {counted(groups, 'finalist')}, "
        f"{counted(without, 'student')} of {counted(len(controls), 'control')}{teacher}. "
        f"Every accuracy is a mean over seeds ± the sample's standard deviation; a gain is the mean of the "
        f"differences to the finalist's own control with the same seeds, with its 95 % t-interval."
    )


def exports(summary: Summary) -> str:
    """The champion's files."""
    champion, label = summary.champion, summary.rank_by.label
    rows = [(name, file.path, f"{file.max_abs_difference:.2g}") for name, file in champion.exports.items()]
    return (
        f"<p>Weights of trial <code>{text(champion.trial_id)}</code>, the seed with the best selection "
        f"{label}; model card: <code>{text(champion.model_card)}</code>.</p>"
        + table("Exported files", ("format", "file", "largest difference of a logit"), rows)
    )


def mlflow(summary: Summary) -> str:
    """Where the record is."""
    place = summary.mlflow
    model = (
        f"{place.registered_model} version {place.version}" if place.registered_model else "not registered"
    )
    facts = fact_list({"tracking": place.tracking_uri, "run": place.parent_run_id or "", "model": model})
    # A link only to a web page: an address comes from a file, and `javascript:` is one as well.
    if place.ui_url and urlsplit(place.ui_url).scheme in ("http", "https"):
        return facts + f'<p><a href="{text(place.ui_url)}" rel="noreferrer">Open the run in MLflow</a></p>'
    return facts
