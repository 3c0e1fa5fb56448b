"""`report.html`: one self-contained page about a run, which opens without a server or a network."""

from __future__ import annotations

from pathlib import Path

from orchestrator.records.students_table import comparison
from orchestrator.records.summary import Summary
from orchestrator.reports import finished_sections as finished
from orchestrator.reports.charts.chart import Chart, merged_styles
from orchestrator.reports.charts.costs import cost_chart
from orchestrator.reports.charts.curves import curves_chart
from orchestrator.reports.charts.parallel_coordinates import parallel_of, search_chart
from orchestrator.reports.html_template import page
from orchestrator.reports.markup import fact_list, note, section, text
from orchestrator.reports.run_facts import RunFacts
from orchestrator.reports.run_state import later_students, leading_tiles, state_of, trial_counts
from orchestrator.reports.teacher_section import teacher_facts
from orchestrator.reports.why_champion import why_champion
from orchestrator.terminal.formatting import counted
from trainables.local_files import replace_text


def write_report(path: Path, facts: RunFacts) -> None:
    """Write the page at once.

    Raises:
        StillhouseError: the file cannot be written.
    """
    replace_text(path, report_html(facts))


def report_html(facts: RunFacts) -> str:
    """The page as text: of a finished run, or of one that goes on; every word of the user's is escaped."""
    charts: list[Chart | None] = []

    def shown(chart: Chart | None, instead: str = "") -> str:
        charts.append(chart)
        return chart.markup if chart else instead

    cost, curves, parallel = cost_chart(facts), curves_chart(facts), parallel_of(facts)
    body = (
        *_top(facts),
        section("Accuracy and cost", shown(cost), _about_costs(facts)) if cost else "",
        section("Learning curves", shown(curves), _about_curves(facts)) if curves else "",
        section(
            "What the search tried",
            f"<p>{text(trial_counts(facts.records))}</p>",
            shown(search_chart(facts), "<p>No hyper-parameter took two values.</p>"),
            note(
                _left_out(parallel.left_out) if parallel else "",
                "One line a trial, the better the further its colour is from the background, the thickest "
                "the best; grey ones were stopped early. A line that passes beside an axis has no such "
                "value; a trial that was stopped has no accuracy to compare.",
            ),
        ),
        *(_bottom(facts.summary) if facts.summary else ()),
    )
    return page(text(facts.experiment), "\n".join(filter(None, body)), merged_styles(charts))


def _top(facts: RunFacts) -> tuple[str, ...]:
    summary = facts.summary
    if summary is None:
        return f'<p class="state" role="status">{text(state_of(facts))}</p>', leading_tiles(facts)
    later = later_students(facts)
    return (
        f'<p class="state" role="status">{text(later)}</p>' if later else "",
        finished.champion_tiles(summary),
        f'<p class="verdict">{text(finished.verdict(summary))}</p>',
        section(
            "Why this champion",
            "<ul>"
            + "".join(f"<li>{text(sentence)}</li>" for sentence in why_champion(facts, summary))
            + "</ul>",
        ),
        section(
            "Students",
            finished.students(summary),
            note(*comparison(summary)),
            note(finished.search_scores(summary)),
            note(finished.devices(summary)),
        ),
    )


def _bottom(summary: Summary) -> tuple[str, ...]:
    seconds = {stage: f"{seconds:.1f} s" for stage, seconds in summary.seconds.items()}
    return (
        section("What the test split was used for", f"<p>{text(finished.test_split(summary))}</p>"),
        '<div class="pair">'
        + section("Teacher and cache", fact_list(teacher_facts(summary)))
        + section("Where the time went", fact_list(seconds))
        + "</div>",
        section("Exported champion", finished.exports(summary)),
        section("Record", finished.mlflow(summary)),
    )


def _left_out(count: int) -> str:
    if not count:
        return ""
    verb = "has" if count == 1 else "have"
    return f"{counted(count, 'more parameter')}, which fewer trials have, {verb} no axis."


def _about_costs(facts: RunFacts) -> str:
    if facts.summary is None:
        return note("Each point is one trial with one seed; the dashed line joins those that no other beats.")
    return note(
        "Points are means over seeds, bars one standard deviation; the dashed line joins the students that "
        "no other beats in both. Where the search weighed costs, rings mark its trials that no other beats "
        "in all that it weighed."
    )


def _about_curves(facts: RunFacts) -> str:
    lead = "" if facts.repeated or facts.summary else "The trials that lead the search, each of one seed."
    return note(
        lead,
        "Lines are means over seeds, bands one standard deviation of the sample to both sides. The first "
        "quarter of the training may lie below the picture; the table has all of it.",
    )
