"""`stillhouse report`: the page about an experiment, at any time, also while the search goes on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.commands.options import Experiment, Json, Out

if TYPE_CHECKING:
    from orchestrator.config.loading import LoadedExperiment
    from orchestrator.records.summary import Summary
    from orchestrator.reports.run_facts import RunFacts
    from orchestrator.terminal.console import Console

PAGE = "report.html"


def report(
    experiment: Experiment,
    out: Out = None,
    to: Annotated[
        Path | None, typer.Option(help=f"The file to write; default: {PAGE} in the output folder.")
    ] = None,
    json_only: Json = False,
) -> None:
    """Write the page about an experiment, also while it runs: it says then that it is not over.

    Nothing is trained.
    """
    from orchestrator.config.loading import load_experiment
    from orchestrator.config.overrides import Overrides
    from orchestrator.config.paths import out_folder
    from orchestrator.reports.html_report import write_report
    from orchestrator.terminal.console import Console

    loaded = load_experiment(experiment, overrides=Overrides(out=out), check_paths=False)
    console = Console(json_only=json_only)
    facts = _facts(loaded, console)
    path = to or out_folder(loaded) / PAGE
    write_report(path, facts)
    console.info(f"report: {path} ({path.stat().st_size / 1024:,.0f} KiB)")
    if facts.summary is None:
        console.info("the run is not over, and there is no champion yet: the page says so too")
    console.result(
        {
            "experiment": facts.experiment,
            "report": str(path),
            "is_over": facts.summary is not None,
            "trials": len(facts.records),
        }
    )


def _facts(loaded: LoadedExperiment, console: Console) -> RunFacts:
    """What the ledger tells, with the summary of a run that is over.

    Raises:
        ConfigError: there is no ledger.
        StillhouseError: it was changed after it was written.
    """
    from orchestrator.commands.reading.kept_ledger import kept_ledger
    from orchestrator.reports.run_facts import facts_of

    ledger = kept_ledger(loaded)
    return facts_of(loaded, ledger, _summary(ledger.folder / "summary.json", console))


def _summary(path: Path, console: Console) -> Summary | None:
    """The summary with paths as the run's own page has them; none of a run that is not over."""
    from orchestrator.records.places import summary_as_written
    from orchestrator.records.summary import Summary, read_summary
    from trainables.errors import StillhouseError

    if not path.exists():
        return None
    try:
        return Summary.from_plain(summary_as_written(read_summary(path).plain()))
    except StillhouseError as error:
        console.info(f"the page has no champion: {error}")
        return None
