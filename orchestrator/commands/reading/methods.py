"""`stillhouse methods`: the evidence for objectives that an experiment's ledger holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.commands.options import Experiment, Out

if TYPE_CHECKING:
    from orchestrator.reports.methods_page import Chapter

BENCH = Path("out/bench.json")


def methods(
    experiment: Experiment,
    out: Out = None,
    to: Annotated[
        Path | None, typer.Option(help="Write the page there; its other chapters and costs stay.")
    ] = None,
    benchmarks: Annotated[
        Path, typer.Option("--bench", help="Figures of `make bench`, for what a step costs.")
    ] = BENCH,
) -> None:
    """Compare the objectives that a finished experiment trained with several seeds, as a page in Markdown.

    Experiments may be compared one after another: each is a chapter of the page that `--to` names.
    """
    from orchestrator.reports.methods_page import chapters_of, methods_page
    from orchestrator.reports.step_costs import read_steps, steps_told
    from trainables.local_files import replace_text

    name, chapter = _chapter(experiment, out)
    before = to.read_text(encoding="utf-8") if to is not None and to.exists() else ""
    chapters = chapters_of(before)
    page = methods_page(
        {**chapters, name: chapter.text}.values(),
        title="Objectives and their evidence",
        steps={**steps_told(before), **read_steps(benchmarks)},
    )
    if to is None:
        typer.echo(page, nl=False)
    else:
        replace_text(to, page)
        kept = ", ".join(other for other in chapters if other != name)
        typer.echo(f"wrote {to}{f' and kept in it: {kept}' if kept else ''}", err=True)


def _chapter(experiment: str, out: Path | None) -> tuple[str, Chapter]:
    """The experiment's name, and what its ledger has."""
    from orchestrator.commands.reading.kept_ledger import kept_ledger
    from orchestrator.config.loading import load_experiment
    from orchestrator.config.overrides import Overrides
    from orchestrator.reports.method_evidence import evidence_of
    from orchestrator.reports.methods_page import Chapter, facts_of

    loaded = load_experiment(experiment, overrides=Overrides(out=out), check_paths=False)
    ledger = kept_ledger(loaded)
    return loaded.config.name, Chapter(facts_of(loaded, ledger), evidence_of(ledger))
