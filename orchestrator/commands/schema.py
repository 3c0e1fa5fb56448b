"""`stillhouse schema`: the JSON schemas of what people and programs write and read."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from orchestrator.config.schema import ExperimentConfig
from orchestrator.config.schema_description import file_schema
from search_spaces.space import SpaceConfig
from trainables.export.stated import StudentDocument


def schema(
    kind: Annotated[
        Literal["experiment", "space", "student"],
        typer.Argument(help="Which file; student: what an exported student says of itself."),
    ],
) -> None:
    """Print the JSON schema of a file, for editors and programs."""
    match kind:
        case "experiment":
            found = file_schema(ExperimentConfig)
        case "space":
            found = file_schema(SpaceConfig)
        case "student":  # which people do not write
            found = StudentDocument.model_json_schema()
    typer.echo(json.dumps(found, indent=2))
