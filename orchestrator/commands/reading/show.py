"""`stillhouse show`: the trials of an experiment, ranked, also while it runs; and all of them as one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.commands.options import Experiment, Json, Out
from trainables.errors import ConfigError

if TYPE_CHECKING:
    from orchestrator.config.loading import LoadedExperiment
    from orchestrator.records.ledger import Ledger
    from orchestrator.terminal.console import Console

TOP = 20


def show(
    experiment: Experiment,
    out: Out = None,
    top: Annotated[int, typer.Option(min=1, help="How many trials the table has.")] = TOP,
    trials: Annotated[
        Path | None, typer.Option(help="Write all trials there too, as .parquet or .csv.")
    ] = None,
    json_only: Json = False,
) -> None:
    """Show the trials of an experiment ranked, and its finalists; also while it runs. Nothing is trained."""
    from orchestrator.config.loading import load_experiment
    from orchestrator.config.overrides import Overrides
    from orchestrator.reports.trial_table import plain_trials, write_trials
    from orchestrator.terminal.console import Console

    loaded = load_experiment(experiment, overrides=Overrides(out=out), check_paths=False)
    ledger, console = _ledger(loaded), Console(json_only=json_only)
    _rankings(ledger, console, top)
    _finalists(loaded, ledger, console)
    if trials is not None:
        count = write_trials(ledger, trials)
        console.info(f"wrote {count} trials, finalists and controls among them, to {trials}")
    console.result({"experiment": loaded.config.name, "trials": plain_trials(ledger)})


def _ledger(loaded: LoadedExperiment) -> Ledger:
    """The ledger of an experiment whose search has begun.

    Raises:
        ConfigError: there is none yet, or it has no trial.
    """
    from orchestrator.commands.reading.kept_ledger import kept_ledger

    ledger = kept_ledger(loaded)
    if not ledger.trials():
        raise ConfigError(
            f"no trial has started in {ledger.folder} yet; look again when the search has begun"
        )
    return ledger


def _rankings(ledger: Ledger, console: Console, top: int) -> None:
    from orchestrator.reports.trial_table import TIES, has_ties, ranking_table, searches_of
    from trainables.config import Role

    for number, search in enumerate(searches_of(ledger), start=1):
        records = ledger.trials(search=search, role=Role.SEARCH)
        columns, rows = ranking_table(records, top)
        which = f" of search {number}" if number > 1 else ""
        shown = f"the best {len(rows)} of {len(records)}" if len(rows) < len(records) else str(len(records))
        console.table(f"trials{which}: {shown}", columns, rows)
        if has_ties(records):
            console.info(TIES.format(label=records[0].rank_by.label))


def _finalists(loaded: LoadedExperiment, ledger: Ledger, console: Console) -> None:
    """The table of students where the run has come to its end; else a word that it has not."""
    from orchestrator.pipeline.finished import show_students
    from orchestrator.records.events import TrialStarted
    from orchestrator.records.summary import read_summary
    from orchestrator.terminal.formatting import counted
    from trainables.errors import StillhouseError

    path = ledger.folder / "summary.json"
    try:
        summary = read_summary(path) if path.exists() else None
    except StillhouseError as error:
        console.info(f"finalists are not shown: {error}")
        return
    if summary is None:
        console.info(f"the run is not over; it goes on with: stillhouse run {loaded.source}")
        return
    show_students(summary, console)
    since = summary.ledger.events if summary.ledger else 0
    later = sum(isinstance(event, TrialStarted) for event in ledger.events(since))
    if later and since:
        console.info(
            f"{counted(later, 'student')} started since; finalists are chosen again at the end of the run"
        )
