"""The command line. Each subcommand imports its stage inside, so that checking a file takes no time."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final

import typer

from cluster.errors import ClusterError
from cluster.home import ensure_home
from orchestrator import __version__
from orchestrator.commands import cache, evaluate, export, pick, predict, record, schema
from orchestrator.commands.completion import complete
from orchestrator.commands.init_file import start_file
from orchestrator.commands.options import (
    Address,
    Experiment,
    Finalists,
    Json,
    Out,
    Pair,
    Space,
    Trials,
    takes_pair,
)
from orchestrator.commands.reading import compare, methods, report, show, watch
from orchestrator.config.loading import (
    EXPERIMENTS_FOLDER,
    SPACES_FOLDER,
    is_space_file,
    load_experiment,
    load_space,
    shipped,
)
from orchestrator.config.overrides import Overrides
from orchestrator.terminal.masking import data_without_secrets, mask_process, without_secrets
from search_spaces.space import SpaceConfig
from trainables.errors import ConfigError, StillhouseError

WRONG_USAGE = 2
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})

app = typer.Typer(
    name="stillhouse",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Finds the best small student for a trained teacher.",
    epilog="Example: stillhouse run digits",
)
app.add_typer(cache.app)
app.add_typer(record.app)
for command, example in (
    (methods.methods, "methods methods_tuned_alike --to docs/methods.md"),
    (show.show, "show digits --trials trials.parquet"),
    (watch.watch, "watch digits"),
    (pick.pick, 'pick digits --where "params <= 20000 and accuracy >= 95 %"'),
    (report.report, "report digits --to digits.html"),
    (evaluate.evaluate, "evaluate digits --faithfulness --samples 200 --restarts 2"),
):
    app.command(epilog=f"Example: stillhouse {example}")(takes_pair()(command))
app.command(epilog="Example: stillhouse compare digits my.yaml")(compare.compare)
app.command(epilog="Example: stillhouse schema experiment > experiment.schema.json")(schema.schema)
app.command(epilog="Example: stillhouse predict out/digits/champion photos/ --top 2 --json")(predict.predict)
app.command(epilog="Example: stillhouse export digits --format onnx_int8")(export.export)


def main() -> None:
    """Runs a subcommand; what goes wrong for a reason is a line on standard error each, and an exit code.

    With `--json` it is a JSON document on standard output too. Secrets in addresses are left out of both,
    of logs and of tracebacks.
    """
    mask_process()
    try:
        sys.stderr.write(ensure_home())
        app()
    except SystemExit as end:  # so Typer ends every command
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if not isinstance(end.code, int | None):  # what sys.exit says in a library
            sys.stderr.write(f"error: {without_secrets(str(end.code))}\n")
        if code == WRONG_USAGE:  # which Typer has told
            _tell_programs(["the command line cannot be used as written; see --help"], code)
        if isinstance(hidden := getattr(end.__context__, "__cause__", None), EOFError):
            raise hidden from None  # Typer takes it for Ctrl-D and says only "Aborted!"; we ask no questions
        _leave(code)
    except (StillhouseError, ClusterError) as error:
        problems = error.problems if isinstance(error, ConfigError) else (str(error),)
        lines = [without_secrets(" ".join(problem.split())) for problem in problems]
        sys.stderr.write("".join(f"error: {line}\n" for line in lines))
        _tell_programs(lines, error.exit_code, error.facts if isinstance(error, StillhouseError) else {})
        _leave(error.exit_code)


def _tell_programs(errors: list[str], exit_code: int, facts: Mapping[str, Any] = NOTHING) -> None:
    if "--json" in sys.argv[1:]:
        told = {"errors": errors, "exit_code": exit_code, **data_without_secrets(facts)}
        typer.echo(json.dumps(told, indent=2))


def _leave(exit_code: int) -> None:
    """End the process; at once where slots were left behind, whose threads must not outlive Ray's session."""
    workers = sys.modules.get("orchestrator.pipeline.workers")
    if workers is not None and workers.is_left_open():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)  # Ray's own processes end with this one
    sys.exit(exit_code)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stillhouse {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Finds the best small student for a trained teacher."""


@app.command(epilog="Example: stillhouse run digits --space crld --trials 30")
@takes_pair()
def run(
    experiment: Experiment,
    space: Space = None,
    out: Out = None,
    trials: Trials = None,
    finalists: Finalists = None,
    json_only: Json = False,
) -> None:
    """Run every stage of an experiment; what an earlier run finished is not done again."""
    overrides = Overrides(space, out, trials, finalists=finalists)
    complete("run", experiment, overrides, json_only=json_only)


@app.command(epilog="Example: stillhouse ui digits")
@takes_pair()
def ui(
    experiment: Experiment = "digits",
    out: Out = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; a free one where it is taken.")] = 5000,
) -> None:
    """Show the record of an experiment in MLflow, also while it runs, opened at the ranked runs."""
    loaded = load_experiment(experiment, overrides=Overrides(out=out), check_paths=False)
    from orchestrator.commands.mlflow_ui import serve_ui
    from orchestrator.config.paths import tracking_uri
    from orchestrator.tracking.cursor import experiment_id
    from orchestrator.tracking.moved_store import tell_of_move

    tell_of_move(loaded, typer.echo)
    serve_ui(tracking_uri(loaded), experiment_id(loaded), host=host, port=port)


@app.command(epilog="Example: stillhouse submit my.yaml --address http://head:8265")
@takes_pair()
def submit(
    experiment: Experiment,
    address: Address = None,
    space: Space = None,
    out: Out = None,
    trials: Trials = None,
    wait: Annotated[bool, typer.Option(help="Follow the log until the job ends.")] = True,
) -> None:
    """Run an experiment on a cluster: send this folder as a Ray job and follow its log."""
    from orchestrator.commands.submit_experiment import submit_experiment

    job = submit_experiment(experiment, Overrides(space, out, trials), address=address, wait=wait)
    ended = f"{job.submission_id}: {job.status}{f' ({job.message})' if job.message else ''}"
    typer.echo(without_secrets(ended))
    raise typer.Exit(job.exit_code or 0)


@app.command(epilog="Example: stillhouse doctor --address auto")
def doctor(
    address: Annotated[str | None, typer.Option(help="A running cluster to check too, or auto.")] = None,
    out: Annotated[str, typer.Option(help="Where results go.")] = "out",
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow to check too.")] = None,
    json_only: Json = False,
) -> None:
    """Check this machine, and a cluster, for what runs need."""
    from orchestrator.commands.doctor import examine

    raise typer.Exit(0 if examine(address, out, tracking_uri, json_only=json_only) else 1)


@app.command(epilog="Example: stillhouse validate my.yaml")
def validate(
    file: Annotated[str, typer.Argument(help="An experiment or search-space file, or a shipped experiment.")],
    paths: Annotated[bool, typer.Option(help="Check that data and checkpoint are on this machine.")] = True,
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Also data, networks, export, record, disk, as a run does first."),
    ] = False,
    json_only: Json = False,
) -> None:
    """Check an experiment with its search space, or a search space alone."""
    found: dict[str, list[str]] = {"problems": []}
    if is_space_file(file):
        space = load_space(file)
        text, data = _described(space), {"space": space.plain()}
    else:
        loaded = load_experiment(file, check_paths=paths)
        more = f"; pairs: {', '.join(loaded.pairs)}" if loaded.pairs else ""
        more += loaded.in_words
        text = f"experiment {loaded.config.name} with {_described(loaded.space)}{more}"
        data = {"experiment": loaded.config.plain(), "space": loaded.space.plain()}
        if deep:
            from orchestrator.commands.validate_deep import validate_deep
            from orchestrator.terminal.console import Console

            data["preflight"] = found = validate_deep(loaded, Console(json_only=json_only))
    problems = found["problems"]
    verdict = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}" if problems else "ok"
    shown = json.dumps(data_without_secrets(data), indent=2) if json_only else f"{file}: {verdict}, {text}"
    typer.echo(shown)
    raise typer.Exit(2 if problems else 0)


@app.command(epilog="Example: stillhouse init my.yaml --from digits")
def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")],
    source: Annotated[str, typer.Option("--from", help="The shipped experiment to start from.")] = "digits",
    pair: Pair = None,
    space: Annotated[str | None, typer.Option("--from-space", help="A shipped search space instead.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Write a commented experiment or search-space file to start from."""
    start_file(path, experiment=source, pair=pair, space=space, force=force)
    typer.echo(f"wrote {path}; next: stillhouse validate {path}")


@app.command(epilog="Example: stillhouse experiments")
def experiments(json_only: Json = False) -> None:
    """List the shipped experiments."""
    _list("experiments", EXPERIMENTS_FOLDER, json_only)


@app.command(epilog="Example: stillhouse spaces")
def spaces(json_only: Json = False) -> None:
    """List the shipped search spaces."""
    _list("spaces", SPACES_FOLDER, json_only)


@app.command(epilog="Example: stillhouse objectives --json")
def objectives(
    json_only: Json = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also time a step of each here, over one of cross-entropy.")
    ] = False,
) -> None:
    """List the objectives: what each needs, whether that is cached, what a step costs, paper, defaults."""
    from orchestrator.commands.objective_table import show_objectives

    show_objectives(json_only=json_only, measure=measure)


def _list(title: str, folder: Path, json_only: bool) -> None:
    from orchestrator.terminal.console import Console

    console = Console(json_only=json_only)
    found = shipped(folder)
    console.table(title, ("name", "what it is"), list(found.items()))
    console.result(found)


def _described(space: SpaceConfig) -> str:
    names = space.objective_names
    n_domains = len({key for name in names for key in space.domains(name)})
    objectives = f"objective{'s' if len(names) > 1 else ''} {', '.join(names)}"
    parameters = f"{n_domains} searched parameter{'' if n_domains == 1 else 's'}"
    return f"space {space.name} ({objectives}; {parameters})"
