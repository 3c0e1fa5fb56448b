"""`stillhouse compare`: two experiments side by side, and what differs in their files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.commands.options import Json, takes_fields

if TYPE_CHECKING:
    from orchestrator.reports.two_experiments import OneExperiment

NAMED = "A shipped experiment by name, or the path of a .yaml file; NAME:PAIR for one of its pairs."


@dataclass(frozen=True)
class Places:
    """Where the two are, if not where their files say."""

    out_a: Annotated[Path | None, typer.Option("--out-a", help="Output folder of A, if not its file's.")] = (
        None
    )
    out_b: Annotated[Path | None, typer.Option("--out-b", help="Output folder of B, if not its file's.")] = (
        None
    )
    space_a: Annotated[str | None, typer.Option("--space-a", help="Search space of A, likewise.")] = None
    space_b: Annotated[str | None, typer.Option("--space-b", help="Search space of B, likewise.")] = None


@takes_fields("where", Places)
def compare(
    first: Annotated[str, typer.Argument(help=NAMED, metavar="A")],
    second: Annotated[str, typer.Argument(help="The other one, likewise.", metavar="B")],
    where: Places,
    json_only: Json = False,
) -> None:
    """Set two experiments side by side, and say what differs in their files. Nothing is trained."""
    from orchestrator.reports import two_experiments as two
    from orchestrator.terminal.console import Console

    one = _known(first, where.out_a, where.space_a)
    other = _known(second, where.out_b, where.space_b)
    console = Console(json_only=json_only)
    names = (first, second) if first != second else (f"{first} (A)", f"{second} (B)")
    facts = two.facts_of(one), two.facts_of(other)
    differences = two.file_differences(one, other)
    console.table(f"{names[0]} and {names[1]}", ("", *names), two.comparison_rows(*facts))
    for sentence in two.sentences(one, other, names):
        console.info(sentence)
    if differences:
        console.table("what differs in their files", ("", *names), two.difference_rows(differences))
    else:
        console.info("their files say the same, but for names and folders")
    gain = two.gain_of_second(one, other)
    console.result(
        {
            "experiments": [
                {"experiment": each.name, **found} for each, found in zip((one, other), facts, strict=True)
            ],
            "test_gain_of_second": None if gain is None else gain.plain(),
            "differences": differences,
        }
    )


def _known(experiment: str, out: Path | None, space: str | None) -> OneExperiment:
    """What is known of an experiment that was begun.

    Raises:
        ConfigError: its file cannot be used, or its folder holds no run.
        StillhouseError: its ledger or summary is damaged.
    """
    from orchestrator.commands.reading.kept_ledger import kept_ledger
    from orchestrator.config.loading import load_experiment
    from orchestrator.config.overrides import Overrides
    from orchestrator.records.summary import read_summary
    from orchestrator.reports.two_experiments import OneExperiment

    loaded = load_experiment(experiment, overrides=Overrides(out=out, space=space), check_paths=False)
    ledger = kept_ledger(loaded)
    path = ledger.folder / "summary.json"
    summary = read_summary(path) if path.exists() else None
    return OneExperiment(loaded.config.name, loaded.config, loaded.space, ledger, summary)
