"""The report's sections that hold a chart, in their order, each with what a reader must know of it."""

from __future__ import annotations

from orchestrator.records.picking.picked import told
from orchestrator.records.selection import rank_trials
from orchestrator.reports.answer_sections import answer_parts
from orchestrator.reports.charts.chart import Chart
from orchestrator.reports.charts.costs import cost_chart
from orchestrator.reports.charts.curves import curves_chart
from orchestrator.reports.charts.importance_bars import importance_chart
from orchestrator.reports.charts.kept_fractions import kept_chart
from orchestrator.reports.charts.parallel_coordinates import parallel_of, search_chart
from orchestrator.reports.charts.picked_front import front_chart
from orchestrator.reports.charts.slices import MOST_PANELS, slices_chart
from orchestrator.reports.charts.timeline_bars import timeline_chart
from orchestrator.reports.importance import CHANCE, LEAST_TRIALS, MOST_DRAWN, RESAMPLES, TREES, importances
from orchestrator.reports.markup import Part, fact_list, note, section, text
from orchestrator.reports.run_facts import RunFacts
from orchestrator.reports.run_state import trial_counts
from orchestrator.reports.timeline import saved_text, stage_spans
from orchestrator.terminal.formatting import counted


def chart_parts(facts: RunFacts) -> list[Part]:
    """All of them; those of data that the run does not have are empty."""
    of_students = [_costs(facts), _front(facts), _curves(facts), *answer_parts(facts)]
    return [*of_students, *_search(facts), _kept(facts), _time(facts)]


def _search(facts: RunFacts) -> list[Part]:
    """What was searched; nothing before the first trial."""
    return [_tried(facts), _importance(facts), _slices(facts)] if facts.records else []


def _costs(facts: RunFacts) -> Part:
    chart = cost_chart(facts)
    if chart is None:
        return Part("")
    about = (
        "Points are means over seeds, bars one standard deviation; the dashed line joins the students that "
        "no other beats in both. Where the search weighed costs, rings mark its trials that no other beats "
        "in all that it weighed."
    )
    if facts.summary is None:
        about = "A grey point is a trial with one seed; the dashed line joins those that no other beats."
    return Part(section("Accuracy and cost", chart.markup, note(about)), chart)


def _front(facts: RunFacts) -> Part:
    """Where the champion was picked from a front, that front."""
    chart, picked = front_chart(facts), facts.summary.picked if facts.summary else None
    if chart is None or picked is None:
        return Part("")
    about = note(
        *told(picked),
        "On the first front are those that no other finalist beats in all of these figures"
        f"{f', whether they meet {picked.where} or not' if picked.where else ''}; finalists are means over "
        "their seeds. Trials of the search, of one seed each, have fronts of their own: shown is the first.",
    )
    return Part(section("The front that was picked from", chart.markup, about), chart)


def _curves(facts: RunFacts) -> Part:
    chart = curves_chart(facts)
    if chart is None:
        return Part("")
    about = note(
        "" if facts.repeated or facts.summary else "The trials that lead the search, each of one seed.",
        "Lines are means over seeds, bands one standard deviation of the sample to both sides. The first "
        "quarter of the training may lie below the picture; the table has all of it.",
    )
    return Part(section("Learning curves", chart.markup, about), chart)


def _tried(facts: RunFacts) -> Part:
    parallel, chart = parallel_of(facts), search_chart(facts)
    about = note(
        _left_out(parallel.left_out) if parallel else "",
        "One line a trial, the better the further its colour is from the background, the thickest the best; "
        "grey ones were stopped early. A line that passes beside an axis has no such value; a trial that was "
        "stopped has no accuracy to compare.",
    )
    counts = f"<p>{text(trial_counts(facts.records))}</p>"
    instead = "<p>No hyper-parameter took two values.</p>"
    return Part(section("What the search tried", counts, chart.markup + about if chart else instead), chart)


def _left_out(count: int) -> str:
    if not count:
        return ""
    verb = "has" if count == 1 else "have"
    return f"{counted(count, 'more parameter')}, which fewer trials have, {verb} no axis."


def _importance(facts: RunFacts) -> Part:
    chart = importance_chart(importances(facts))
    head = "Which parameters mattered"
    if chart is None:
        completed = len(rank_trials(facts.records))
        few = (
            f"{counted(completed, 'completed trial')}: too few, or too much alike, to tell; the least that "
            f"this page judges by is {LEAST_TRIALS} which all have a parameter and do not all score the same."
        )
        return Part(section(head, f"<p>{text(few)}</p>"))
    about = note(
        f"Shares of the differences in selection {facts.rank_by.label} between completed trials that a "
        f"random forest explains by each parameter (Optuna's mean decrease of impurity), over {RESAMPLES} "
        f"forests of {TREES} trees, each of {MOST_DRAWN} trials at most, drawn anew with replacement. Each "
        f"forest also has {CHANCE} to explain by: what is no more important than that may not matter at all. "
        "Only parameters that all trials of a comparison have are in it. A search that favours good regions "
        "shows less of what is bad elsewhere."
    )
    return Part(section(head, chart.markup, about), chart)


def _slices(facts: RunFacts) -> Part:
    chart = slices_chart(facts)
    if chart is None:
        return Part("")
    more = f"Shown are the {MOST_PANELS} parameters that most trials have." if _is_full(chart) else ""
    about = note("Completed trials, one point each, by one parameter at a time.", more)
    return Part(section("Accuracy by parameter", chart.markup, about), chart)


def _is_full(chart: Chart) -> bool:
    return len(chart.panels) == MOST_PANELS


def _kept(facts: RunFacts) -> Part:
    chart = kept_chart(facts)
    if chart is None:
        return Part("")
    about = note(
        "The mean share of the training samples of an epoch that a mask of the objective keeps, as a "
        "threshold on confidence does; a term hardly teaches where its mask keeps almost none."
    )
    return Part(section("Samples kept by confidence thresholds", chart.markup, about), chart)


def _time(facts: RunFacts) -> Part:
    """Stages and students by time; the summary's seconds count where a run was interrupted."""
    stages = facts.summary.seconds if facts.summary else {}
    if not stages:
        for span in stage_spans(facts):
            stages = {**stages, span.name: stages.get(span.name, 0.0) + span.end_s - span.start_s}
    listed = fact_list({stage: f"{seconds:.1f} s" for stage, seconds in stages.items()})
    chart = timeline_chart(facts)
    if chart is None:
        return Part(section("Where the time went", listed))
    about = note(
        "Above the stages, below them one bar for each student while it was trained. The ledger does not "
        "tell which slot that was: a row is no slot, and there are as many rows as students were trained "
        "at once.",
    )
    saved = f"<p>{text(saved_text(facts.records))}</p>"
    return Part(section("Where the time went", listed, chart.markup, about, saved), chart)
