"""Arguments and options that several subcommands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Final, get_type_hints

import typer

from orchestrator.config.picking.figures import FIGURES

Experiment = Annotated[str, typer.Argument(help="A shipped experiment by name, or the path of a .yaml file.")]
Space = Annotated[str | None, typer.Option(help="Another search space: a shipped name or a path.")]
Out = Annotated[Path | None, typer.Option(help="Output folder, instead of the file's.")]
Trials = Annotated[int | None, typer.Option(min=1, help="Budget of trials, instead of the file's.")]
Finalists = Annotated[int | None, typer.Option(min=1, help="Best students that are trained again.")]
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")]
_WHERE: Final = (
    'Constraints with and, or and parentheses, as "latency_ms <= 2 and accuracy >= 0.9". '
    f"Figures: {', '.join(FIGURES)}; accuracies are of the selection split, means over seeds."
)
Where = Annotated[str | None, typer.Option(help=_WHERE)]
Rank = Annotated[
    str | None,
    typer.Option(help="The figure by which the best is chosen, in the direction that is better."),
]
Pareto = Annotated[
    str | None,
    typer.Option(help="Choose from the first front by these figures, as accuracy,latency_ms,params."),
]
Pair = Annotated[str | None, typer.Option("--pair", help="One of the file's pairs of teacher and student.")]
Address = Annotated[str | None, typer.Option(help="The cluster's job server, as http://head:8265.")]
CachePlace = Annotated[
    str, typer.Argument(help="An experiment (name or .yaml file), or a cache's folder or s3:// URI.")
]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="An exported student: a .safetensors, .onnx or .pt2 file, a champion's folder, or "
        "models:/NAME@champion in MLflow.",
    ),
]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        help="The MLflow store of models:/..., an address or the output folder of a run. Default: "
        "MLFLOW_TRACKING_URI, or the only run below ./out."
    ),
]
AllowFactory = Annotated[
    bool,
    typer.Option(
        "--allow-factory",
        help="Call the function of yours that the file names to build its network; its module is looked for "
        "in this folder.",
    ),
]


Command = Callable[..., None]


def takes_pair(argument: str = "experiment") -> Callable[[Command], Command]:
    """Gives a command the option --pair, which reaches it behind its experiment: EXPERIMENT:PAIR."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def joined(*, pair: str | None = None, **given: Any) -> None:
            if pair is not None:
                given[argument] = f"{given[argument]}:{pair}"
            command(**given)

        # Typer reads a command's options off its signature.
        signature = inspect.signature(command, eval_str=True)
        option = inspect.Parameter("pair", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Pair)
        parameters = [*signature.parameters.values(), option]
        joined.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        joined.__annotations__ = {each.name: each.annotation for each in parameters}
        return joined

    return decorate


def takes_fields(argument: str, record: type) -> Callable[[Command], Command]:
    """Gives a command an option for each field of a dataclass, which reach it as one record."""
    hints = get_type_hints(record, include_extras=True)

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def gathered(**given: Any) -> None:
            options = {name: given.pop(name) for name in hints}
            command(**{argument: record(**options)}, **given)

        signature = inspect.signature(command, eval_str=True)
        own = [each for each in signature.parameters.values() if each.name != argument]
        keyword = inspect.Parameter.KEYWORD_ONLY
        added = [
            inspect.Parameter(field.name, keyword, default=field.default, annotation=hints[field.name])
            for field in fields(record)
        ]
        parameters = [each.replace(kind=keyword) for each in (*own[:1], *added, *own[1:])]
        gathered.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        gathered.__annotations__ = {each.name: each.annotation for each in parameters}
        return gathered

    return decorate
