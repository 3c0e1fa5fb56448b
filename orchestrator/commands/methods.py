"""`stillhouse methods`: the evidence for objectives that an experiment's ledger holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.commands.options import Experiment, Out
from trainables.errors import ConfigError

BENCH = Path("out/bench.json")


def methods(
    experiment: Experiment,
    out: Out = None,
    to: Annotated[Path | None, typer.Option(help="Write the page there, not to standard output.")] = None,
    benchmarks: Annotated[
        Path, typer.Option("--bench", help="Figures of `make bench`, for what a step costs.")
    ] = BENCH,
) -> None:
    """Compare the objectives that a finished experiment trained with several seeds, as a page in Markdown."""
    from orchestrator.config.loading import load_experiment
    from orchestrator.config.overrides import Overrides
    from orchestrator.config.paths import out_folder
    from orchestrator.records.ledger import Ledger
    from orchestrator.reports.method_evidence import evidence_of
    from orchestrator.reports.methods_page import facts_of, methods_page, read_steps
    from trainables.local_files import replace_text

    overrides = Overrides(out=out)
    loaded = load_experiment(experiment, overrides=overrides, check_paths=False)
    folder = out_folder(loaded)
    if not (folder / "ledger.jsonl").exists():
        raise ConfigError(f"{folder} holds no run of {loaded.config.name}; run it first, or give its --out")
    ledger = Ledger(folder)
    where = f" --to {to}" if to else ""
    page = methods_page(
        evidence_of(ledger),
        title="Objectives and their evidence",
        facts=facts_of(loaded, ledger),
        command=f"stillhouse methods {experiment}{where}",
        steps=read_steps(benchmarks),
    )
    if to is None:
        typer.echo(page, nl=False)
    else:
        replace_text(to, page)
        typer.echo(f"wrote {to}", err=True)
