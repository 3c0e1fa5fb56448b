"""`stillhouse evaluate`: what a trained student is worth, and how it follows its teacher near images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer
from pydantic import ValidationError

from orchestrator.commands.options import Experiment, Json, Out, takes_fields
from trainables.config.faithfulness import BallSearch, ConfidenceOf
from trainables.errors import ConfigError

_SEARCH: Final = BallSearch()
_LEVELS: Final = ", ".join(f"{epsilon:g}" for epsilon in _SEARCH.epsilons)


@dataclass(frozen=True)
class EvaluateOptions:
    """What `stillhouse evaluate` is asked for; none is a default."""

    trial: Annotated[
        str | None, typer.Option(help="The student; default: the champion of the last finished run.")
    ] = None
    split: Annotated[
        Literal["selection", "test"],
        typer.Option(
            help="On which images. test: only for students that a run has tested already (finalists and "
            "control), so that nobody chooses a student by it."
        ),
    ] = "selection"
    faithfulness: Annotated[
        bool,
        typer.Option(
            "--faithfulness",
            help="Attack both networks near the images: do they disagree there, is the student as sure?",
        ),
    ] = False
    epsilon: Annotated[
        list[float] | None,
        typer.Option(help=f"Radius in levels of 0 to 255; may be given again. Default: {_LEVELS}."),
    ] = None
    steps: Annotated[int | None, typer.Option(min=1, help=f"Of each attack. Default: {_SEARCH.steps}.")] = (
        None
    )
    restarts: Annotated[
        int | None, typer.Option(min=1, help=f"Attacks for each figure. Default: {_SEARCH.restarts}.")
    ] = None
    samples: Annotated[
        int | None, typer.Option(min=1, help=f"Images to attack at most. Default: {_SEARCH.samples}.")
    ] = None
    seed: Annotated[
        int | None, typer.Option(min=0, help=f"Of images and attacks. Default: {_SEARCH.seed}.")
    ] = None
    confidence_of: Annotated[
        ConfidenceOf | None,
        typer.Option(help=f"The class of a confidence; teacher: its own. Default: {_SEARCH.confidence_of}."),
    ] = None
    to: Annotated[Path | None, typer.Option(help="Write the result there too, as JSON.")] = None

    def search(self) -> BallSearch | None:
        """How balls are searched; none without --faithfulness.

        Raises:
            ConfigError: an option is out of its bounds, or says nothing without --faithfulness.
        """
        names = ("steps", "restarts", "samples", "seed", "confidence_of")
        given: dict[str, Any] = {name: getattr(self, name) for name in names}
        given = {name: value for name, value in given.items() if value is not None}
        if self.epsilon:
            given["epsilons"] = tuple(self.epsilon)
        if given and not self.faithfulness:
            options = ", ".join(map(_option, given))
            raise ConfigError(
                f"{options}: of attacks, which --faithfulness asks for; add it, or leave this out"
            )
        try:
            return BallSearch(**given) if self.faithfulness else None
        except ValidationError as error:
            first = error.errors()[0]
            option = _option(str(first["loc"][0]))
            raise ConfigError(f"{option} {first['input']}: {first['msg']}") from error


def _option(field: str) -> str:
    """The option that gives a field of the search."""
    return "--" + {"epsilons": "epsilon"}.get(field, field).replace("_", "-")


@takes_fields("options", EvaluateOptions)
def evaluate(
    experiment: Experiment, options: EvaluateOptions, out: Out = None, json_only: Json = False
) -> None:
    """Evaluate a trained student: accuracy, nll and ece on clean images, and agreement with its teacher.

    With --faithfulness also what attacks find in small balls around images that the teacher gets right. That
    is one-sided: disagreement and gap are at least what was found, so none of it is a guarantee. Each image
    takes 8 x radii x steps x restarts passes, forward and back, through both networks: 3,200 by default.

    In this process, without Ray, on a GPU where there is one. The teacher is that of the experiment file.
    """
    from orchestrator.config.loading import load_experiment
    from orchestrator.config.overrides import Overrides

    search = options.search()
    loaded = load_experiment(experiment, overrides=Overrides(out=out))
    from orchestrator.pipeline.evaluate_student import evaluate_student, show_evaluation
    from orchestrator.terminal.console import Console
    from trainables.local_files import replace_text

    console = Console(json_only=json_only)
    found = evaluate_student(loaded, console, trial=options.trial, split=options.split, search=search)
    show_evaluation(found, console)
    if options.to is not None:
        replace_text(options.to, found.model_dump_json(indent=2) + "\n")
        console.info(f"wrote {options.to}")
    console.result(found.plain())
