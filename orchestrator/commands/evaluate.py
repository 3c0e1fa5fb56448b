"""`stillhouse evaluate`: what a trained student is worth, and how it follows its teacher near images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer
from pydantic import ValidationError

from orchestrator.commands.options import AllowFactory, Json, Out, TrackingUri, takes_fields
from orchestrator.config.paths import names_student
from trainables.config import Config
from trainables.config.faithfulness import BallSearch, ConfidenceOf
from trainables.errors import ConfigError

if TYPE_CHECKING:
    from orchestrator.terminal.console import Console

_SEARCH: Final = BallSearch()
_OF_DATA: Final = ("confusion", "reliability", "tracking_uri", "allow_factory")
_OF_LEDGER: Final = ("trial", "faithfulness")
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
    data: Annotated[
        str | None,
        typer.Option(
            help="On these images: a folder with a folder for each class, or an experiment's. Asks the "
            "exported student alone, and of an experiment its champion."
        ),
    ] = None
    confusion: Annotated[
        Path | None, typer.Option(help="With --data: write the confusion matrix there, as .csv.")
    ] = None
    reliability: Annotated[
        Path | None, typer.Option(help="With --data: write a reliability diagram there, as .png or .svg.")
    ] = None
    tracking_uri: TrackingUri = None
    allow_factory: AllowFactory = False
    to: Annotated[Path | None, typer.Option(help="Write the result there too, as JSON.")] = None

    def require_one_kind(self, *, names_student: bool) -> None:
        """Refuse options that say nothing about what is asked for.

        Raises:
            ConfigError: naming them; or a MODEL without --data.
        """
        if self.data is None:
            given = [name for name in _OF_DATA if getattr(self, name) not in (None, False)]
            if names_student:
                raise ConfigError(
                    "say on which images: --data FOLDER, with a folder for each class, or --data EXPERIMENT"
                )
            if given:
                raise ConfigError(
                    f"{', '.join(map(_option, given))}: goes with --data; add it, or leave this out"
                )
        elif given := [name for name in _OF_LEDGER if getattr(self, name) not in (None, False)]:
            raise ConfigError(
                f"{', '.join(map(_option, given))}: of a student that an experiment's record knows; "
                "leave it out, or leave out --data"
            )

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


Target = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT|MODEL",
        help="An experiment, by a shipped name or the path of a .yaml file; or with --data an exported "
        "student: a .safetensors, .onnx or .pt2 file, a champion's folder, or models:/NAME@champion.",
    ),
]


@takes_fields("options", EvaluateOptions)
def evaluate(experiment: Target, options: EvaluateOptions, out: Out = None, json_only: Json = False) -> None:
    """Evaluate a trained student: accuracy, nll and ece on clean images, and agreement with its teacher.

    With --data an exported student is asked about those images, by its file alone: accuracy of each class,
    confusion matrix and reliability too.

    With --faithfulness also what attacks find in small balls around images that the teacher gets right. That
    is one-sided: disagreement and gap are at least what was found, so none of it is a guarantee. Each image
    takes 8 x radii x steps x restarts passes, forward and back, through both networks: 3,200 by default.

    In this process, without Ray, on a GPU where there is one (--data: on the CPU). The teacher is that of the
    experiment file.
    """
    options.require_one_kind(names_student=names_student(experiment))
    search = options.search()
    from orchestrator.config.loading import load_experiment
    from orchestrator.config.overrides import Overrides
    from orchestrator.terminal.console import Console
    from trainables.local_files import replace_text

    console = Console(json_only=json_only)
    if options.data is not None:
        found = _on_images(experiment, options, options.data, out, console)
    else:
        loaded = load_experiment(experiment, overrides=Overrides(out=out))
        from orchestrator.pipeline.evaluate_student import evaluate_student, show_evaluation

        evaluation = evaluate_student(
            loaded, console, trial=options.trial, split=options.split, search=search
        )
        show_evaluation(evaluation, console)
        found = evaluation
    if options.to is not None:
        replace_text(options.to, found.model_dump_json(indent=2) + "\n")
        console.info(f"wrote {options.to}")
    console.result(found.plain())


def _on_images(
    target: str, options: EvaluateOptions, data: str, out: Path | None, console: Console
) -> Config:
    """What an exported student is worth on these images; files that are asked for are written."""
    from orchestrator.pipeline.shipped import evaluation
    from orchestrator.pipeline.shipped.labelled_images import labelled_images
    from orchestrator.pipeline.shipped.named import champion_of_run, opened

    if options.reliability is not None:
        evaluation.require_picture(options.reliability)
    model = target if names_student(target) else champion_of_run(target, out)
    with opened(model, tracking_uri=options.tracking_uri, allow_factory=options.allow_factory) as student:
        images = labelled_images(data, student.document, split=options.split)
        found = evaluation.evaluate_on_images(target, student, images, console)
    evaluation.show_images(found, console)
    for path, write in (
        (options.confusion, evaluation.write_confusion),
        (options.reliability, evaluation.write_reliability),
    ):
        if path is not None:
            write(found, path)
            console.info(f"wrote {path}")
    return found
