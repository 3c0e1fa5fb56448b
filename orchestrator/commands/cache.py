"""The subcommands of `stillhouse cache`. Each imports its work inside, so that help takes no time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from orchestrator.commands.options import CachePlace, Experiment, Json, Out, Space, takes_pair
from orchestrator.config.loading import LoadedExperiment, load_experiment
from orchestrator.config.overrides import Overrides
from orchestrator.config.pairs import split_pair
from trainables.config import BroughtValues

app: Final = typer.Typer(
    name="cache",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="The teacher's answers: what they will cost, whether they are sound, what is in them.",
    epilog="Example: stillhouse cache plan digits",
)

YAML: Final = (".yaml", ".yml")


@app.command(epilog="Example: stillhouse cache plan digits --space crld")
@takes_pair()
def plan(experiment: Experiment, space: Space = None, out: Out = None, json_only: Json = False) -> None:
    """Tell what a cache will cost before anything runs.

    Rows, bytes, the teacher's time, and what each precision loses; exit code 1 if the disk is too small.
    """
    loaded = _loaded(experiment, space, out)
    from orchestrator.cache_tools.plan import plan_cache
    from orchestrator.pipeline.context import quiet_run
    from orchestrator.terminal.console import Console

    console = Console(json_only=json_only)
    with quiet_run(loaded, console) as run:
        console.result(plan_cache(run, console))


@app.command(epilog="Example: stillhouse cache verify digits --deep --repair")
@takes_pair("cache")
def verify(
    cache: CachePlace,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every file, and ask the teacher a sample again.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Compute damaged files again, and only them.")
    ] = False,
    space: Space = None,
    out: Out = None,
    json_only: Json = False,
) -> None:
    """Name damaged, missing and foreign files.

    Exit code 1 when something is wrong and not repaired.
    """
    with _target(cache, space, out, json_only=json_only) as (target, console):
        from orchestrator.cache_tools.verify import verify_cache

        result = verify_cache(target, console, deep=deep, repair=repair)
        console.result(result)
    raise typer.Exit(0 if result["ok"] else 1)


@app.command(epilog="Example: stillhouse cache info digits --views")
@takes_pair("cache")
def info(
    cache: CachePlace,
    views: Annotated[bool, typer.Option("--views", help="One line for each view too.")] = False,
    space: Space = None,
    out: Out = None,
    json_only: Json = False,
) -> None:
    """Show what is in a cache, bank by bank.

    Views, rows and bytes, and how often right, how sure and how undecided the teacher is.
    """
    with _target(cache, space, out, json_only=json_only) as (target, console):
        from orchestrator.cache_tools.verify import tell_of_cache

        console.result(tell_of_cache(target, console, by_view=views))


@app.command(epilog="Example: stillhouse cache show digits --sample 17 --to seventeen.png")
@takes_pair()
def show(
    experiment: Experiment,
    sample: Annotated[int, typer.Option(help="The sample's id: its row in the training part of the data.")],
    to: Annotated[Path | None, typer.Option(help="The picture; default: sample-ID.png.")] = None,
    space: Space = None,
    out: Out = None,
    json_only: Json = False,
) -> None:
    """Draw a sample's views as a PNG.

    Under each stand the classes that the teacher finds most probable.
    """
    with _target(experiment, space, out, json_only=json_only) as (target, console):
        from orchestrator.cache_tools.transfer import show_sample

        console.result(show_sample(target, sample, to, console))


@app.command(epilog="Example: stillhouse cache export digits answers.parquet --bank weak")
@takes_pair("cache")
def export(  # noqa: PLR0913 # budget: options of the command line
    cache: CachePlace,
    file: Annotated[Path, typer.Argument(help="The .parquet or .csv file to write.")],
    bank: Annotated[list[str] | None, typer.Option(help="Only this bank; may be given again.")] = None,
    feature: Annotated[
        str | None, typer.Option(help="This feature (embedding, classifier, ...) instead of the logits.")
    ] = None,
    space: Space = None,
    out: Out = None,
    json_only: Json = False,
) -> None:
    """Write the answers as one plain table.

    One row for each bank, view and sample, for pandas, DuckDB or a spreadsheet.
    """
    with _target(cache, space, out, json_only=json_only) as (target, console):
        from orchestrator.cache_tools.transfer import export_file

        console.result(export_file(target, file, bank or [], console, feature=feature))


@app.command(epilog="Example: stillhouse cache gc --unused-days 1 --dry-run")
def gc(
    unused_days: Annotated[float, typer.Option(min=0, help="Copies not used for so many days go.")] = 7.0,
    keep_gb: Annotated[float | None, typer.Option(min=0, help="Beyond so many GB the oldest go too.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")] = False,
    json_only: Json = False,
) -> None:
    """Remove this node's copies of caches that nobody uses.

    Caches themselves are not touched, and copies that a process reads are left.
    """
    from orchestrator.cache_tools.clean import clean_node
    from orchestrator.terminal.console import Console

    console = Console(json_only=json_only)
    console.result(clean_node(console, unused_days=unused_days, keep_gb=keep_gb, dry_run=dry_run))


@app.command(name="import", epilog="Example: stillhouse cache import logits.npz my.yaml")
def import_(
    file: Annotated[Path, typer.Argument(help="An .npz or .parquet file with ids and logits.")],
    experiment: Experiment,
    values: Annotated[
        BroughtValues, typer.Option(help="What the numbers are; log-probabilities are logits.")
    ] = "logits",
    space: Space = None,
    out: Out = None,
    json_only: Json = False,
) -> None:
    """Bring logits that exist already, or probabilities.

    They are of unaltered images; the experiment has `teacher: {imported: true}`, and its runs use them
    instead of a network.
    """
    loaded = _loaded(experiment, space, out)
    from orchestrator.cache_tools.transfer import import_file
    from orchestrator.terminal.console import Console

    console = Console(json_only=json_only)
    console.result(import_file(file, loaded, console, values))


def _loaded(experiment: str, space: str | None, out: Path | None) -> LoadedExperiment:
    return load_experiment(experiment, overrides=Overrides(space=space, out=out))


@contextmanager
def _target(ref: str, space: str | None, out: Path | None, *, json_only: bool) -> Iterator[tuple[Any, Any]]:
    """What the command is about, and its console; Ray writes to standard output, where programs read JSON."""
    loaded = None if _names_a_place(ref) else _loaded(ref, space, out)
    from orchestrator.terminal.console import Console

    console = Console(json_only=json_only, out=sys.stdout)
    with redirect_stdout(sys.stderr if json_only else sys.stdout):
        if loaded is None:  # without torch and Ray
            from orchestrator.cache_tools.target import CacheTarget
            from trainables.cache.format.storage import open_place

            yield CacheTarget(open_place(ref)), console
            return
        from orchestrator.cache_tools.owner import target_of

        with target_of(loaded, console) as target:
            yield target, console


def _names_a_place(ref: str) -> bool:
    """Whether a folder or a URI is meant, and not an experiment."""
    return "://" in ref or Path(ref).is_dir() or ("/" in ref and Path(split_pair(ref)[0]).suffix not in YAML)
