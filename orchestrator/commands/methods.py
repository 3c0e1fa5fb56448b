"""`stillhouse methods`: the evidence for objectives that an experiment's ledger holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.commands.options import Experiment, Out
from trainables.errors import ConfigError

if TYPE_CHECKING:
    from orchestrator.reports.methods_page import Chapter

BENCH = Path("out/bench.json")


def methods(
    experiment: Experiment,
    out: Out = None,
    also: Annotated[
        list[str] | None, typer.Option("--and", help="Another experiment, as a chapter behind it.")
    ] = None,
    to: Annotated[Path | None, typer.Option(help="Write the page there, not to standard output.")] = None,
    benchmarks: Annotated[
        Path, typer.Option("--bench", help="Figures of `make bench`, for what a step costs.")
    ] = BENCH,
) -> None:
    """Compare the objectives that a finished experiment trained with several seeds, as a page in Markdown."""
    from orchestrator.reports.methods_page import methods_page, read_steps
    from trainables.local_files import replace_text

    names = [experiment, *(also or [])]
    # `out` is the first one's: the others lie where their files say.
    chapters = [_chapter(name, out if name == experiment else None) for name in names]
    where = f" --to {to}" if to else ""
    page = methods_page(
        chapters,
        title="Objectives and their evidence",
        command=f"stillhouse methods {' --and '.join(names)}{where}",
        steps=read_steps(benchmarks),
    )
    if to is None:
        typer.echo(page, nl=False)
    else:
        replace_text(to, page)
        typer.echo(f"wrote {to}", err=True)


def _chapter(experiment: str, out: Path | None) -> Chapter:
    from orchestrator.config.loading import load_experiment
    from orchestrator.config.overrides import Overrides
    from orchestrator.config.paths import out_folder
    from orchestrator.records.ledger import Ledger
    from orchestrator.reports.method_evidence import evidence_of
    from orchestrator.reports.methods_page import Chapter, facts_of

    loaded = load_experiment(experiment, overrides=Overrides(out=out), check_paths=False)
    folder = out_folder(loaded)
    if not (folder / "ledger.jsonl").exists():
        raise ConfigError(f"{folder} holds no run of {loaded.config.name}; run it first, or give its --out")
    ledger = Ledger(folder)
    return Chapter(facts_of(loaded, ledger), evidence_of(ledger))
