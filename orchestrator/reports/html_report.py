"""`report.html`: one self-contained page about a run, which opens without a server or a network."""

from __future__ import annotations

from pathlib import Path

from orchestrator.records.summary import Summary
from orchestrator.records.tables.students_table import comparison
from orchestrator.reports import finished_sections as finished
from orchestrator.reports.chart_sections import chart_parts
from orchestrator.reports.charts.chart import merged_styles
from orchestrator.reports.html_template import page
from orchestrator.reports.markup import fact_list, note, section, text
from orchestrator.reports.run_facts import RunFacts
from orchestrator.reports.run_state import later_students, leading_tiles, state_of
from orchestrator.reports.teacher_section import teacher_facts
from orchestrator.reports.why_champion import why_champion
from trainables.local_files import replace_text


def write_report(path: Path, facts: RunFacts) -> None:
    """Write the page at once.

    Raises:
        StillhouseError: the file cannot be written.
    """
    replace_text(path, report_html(facts))


def report_html(facts: RunFacts) -> str:
    """The page as text: of a finished run, or of one that goes on; every word of the user's is escaped."""
    parts = chart_parts(facts)
    bottom = _bottom(facts.summary) if facts.summary else ()
    body = filter(None, (*_top(facts), *(part.markup for part in parts), *bottom))
    return page(text(facts.experiment), "\n".join(body), merged_styles([part.chart for part in parts]))


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
    return (
        section("What the test split was used for", f"<p>{text(finished.test_split(summary))}</p>"),
        section("Teacher and cache", fact_list(teacher_facts(summary))),
        section("Exported champion", finished.exports(summary)),
        section("Record", finished.mlflow(summary)),
    )
