"""`stillhouse export`: further files of a student that was exported already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orchestrator.commands.options import Json, Out, takes_fields
from orchestrator.config.overrides import Overrides
from orchestrator.config.paths import CHAMPION_FOLDER, champion_place, names_student
from trainables.errors import ConfigError

if TYPE_CHECKING:
    from orchestrator.pipeline.shipped.more_exports import MoreFormat
    from trainables.export.model_card import ExportedFile

COLUMNS = (
    "file",
    "bytes",
    "largest difference of a logit",
    "same class, %",
    "images",
    "accuracy, %",
    "one image, ms",
    "64 images, ms",
)


@dataclass(frozen=True)
class ExportOptions:
    """What `stillhouse export` is asked for."""

    file_format: Annotated[
        Literal["onnx", "torch_export", "onnx_int8", "onnx_int8_aware"],
        typer.Option(
            "--format",
            help="onnx_int8: quantised, calibrated on real images; onnx_int8_aware: after some more epochs "
            "of training for it, on slots. The others go with --with-preprocessing.",
        ),
    ] = "onnx"
    with_preprocessing: Annotated[
        bool,
        typer.Option(
            "--with-preprocessing",
            help="Takes uint8 pictures HxWxC of any size; resizes and normalises them.",
        ),
    ] = False
    data: Annotated[
        str | None,
        typer.Option(
            help="Real images to calibrate and compare on: an experiment, or a folder with a folder for each "
            "class. Default: the selection split of the experiment that is exported."
        ),
    ] = None


@takes_fields("options", ExportOptions)
def export(
    place: Annotated[
        str,
        typer.Argument(
            metavar="EXPERIMENT|FOLDER", help="An experiment that ran, or the folder of its champion."
        ),
    ],
    options: ExportOptions,
    out: Out = None,
    json_only: Json = False,
) -> None:
    """Write a further file of an exported student beside the others, measured on real images.

    What was measured stands in the model card: how far its answers are those of the student, and for int8
    accuracy and latency too, so nothing else should compute meanwhile.
    """
    if options.file_format == "onnx_int8_aware":
        _export_aware(place, options, out, json_only=json_only)
        return
    wanted = _wanted(options.file_format, with_preprocessing=options.with_preprocessing)
    shown = options.data or (None if names_student(place) else place)
    if shown is None:
        raise ConfigError(f"say on which images {place} is compared: --data EXPERIMENT, or --data FOLDER")
    from orchestrator.pipeline.shipped.labelled_images import labelled_images
    from orchestrator.pipeline.shipped.more_exports import add_format
    from orchestrator.terminal.console import Console
    from trainables.export.opening import exported_file
    from trainables.export.stated import document_of

    console = Console(json_only=json_only)
    folder = _champions_folder(place, out)
    images = labelled_images(shown, document_of(exported_file(folder)))
    entry = add_format(folder, wanted, images)
    path = str(folder / entry.file)
    console.table(f"{wanted}, compared on {images.name}", COLUMNS, [_row(path, entry)])
    console.result({"format": wanted, "path": path, **entry.plain()})


def _export_aware(place: str, options: ExportOptions, out: Path | None, *, json_only: bool) -> None:
    """Have the run go on: it trains the champion for int8, and exports it again with that file."""
    if names_student(place):
        raise ConfigError(
            "onnx_int8_aware trains the champion on, with the data and the teacher's answers of its "
            f"experiment; name the experiment in the place of {place}"
        )
    if options.data is not None:
        raise ConfigError("onnx_int8_aware is compared on the experiment's selection split; leave out --data")
    if options.with_preprocessing:
        raise _for_prepared_images()
    from orchestrator.commands.completion import complete

    complete("export", place, Overrides(out=out, int8_aware=True), json_only=json_only)


def _for_prepared_images() -> ConfigError:
    return ConfigError(
        "int8 is written for prepared images alone; give either --format onnx_int8 or onnx_int8_aware, or "
        "--with-preprocessing"
    )


def _champions_folder(place: str, out: Path | None) -> Path:
    from orchestrator.pipeline.shipped.named import champion_of_run

    folder = champion_place(place) if names_student(place) else Path(champion_of_run(place, out))
    if not folder.is_dir():
        raise ConfigError(f"{place} is no folder; name the one in which the file lies: {CHAMPION_FOLDER}/")
    return folder


def _row(path: str, entry: ExportedFile) -> tuple[str, ...]:
    latency = entry.latency
    return (
        path,
        f"{entry.bytes:,}",
        f"{entry.max_abs_difference:.2g}",
        "" if entry.agreement is None else f"{100 * entry.agreement:.2f}",
        f"{entry.images or 0:,}",
        "" if entry.accuracy is None else f"{100 * entry.accuracy:.2f}",
        "" if latency is None else f"{latency.batch_1_median_ms:.3f}",
        "" if latency is None else f"{latency.batch_64_median_ms:.3f}",
    )


def _wanted(file_format: str, *, with_preprocessing: bool) -> MoreFormat:
    match file_format, with_preprocessing:
        case "onnx", True:
            return "onnx_with_preprocessing"
        case "torch_export", True:
            return "torch_export_with_preprocessing"
        case "onnx_int8", False:
            return "onnx_int8"
        case "onnx_int8", True:
            raise _for_prepared_images()
        case _:
            raise ConfigError(
                f"every champion has a file of {file_format}; add --with-preprocessing, or give --format "
                "onnx_int8"
            )
