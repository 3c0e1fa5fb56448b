"""Arguments and options that several subcommands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Experiment = Annotated[str, typer.Argument(help="A shipped experiment by name, or the path of a .yaml file.")]
Space = Annotated[str | None, typer.Option(help="Another search space: a shipped name or a path.")]
Out = Annotated[Path | None, typer.Option(help="Output folder, instead of the file's.")]
Trials = Annotated[int | None, typer.Option(min=1, help="Budget of trials, instead of the file's.")]
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")]
Where = Annotated[str | None, typer.Option(help='Constraints, as "latency_ms <= 2 and params <= 1e6".')]
Address = Annotated[str | None, typer.Option(help="The cluster's job server, as http://head:8265.")]
CachePlace = Annotated[
    str, typer.Argument(help="An experiment (name or .yaml file), or a cache's folder or s3:// URI.")
]
