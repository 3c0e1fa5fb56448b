"""`stillhouse predict`: what an exported student says of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.commands.options import AllowFactory, Json, Model, TrackingUri
from trainables.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.pipeline.shipped.predictions import ImageAnswer, UnreadImage
    from orchestrator.terminal.console import Console
    from trainables.export.stated import StudentDocument

NAMED_CHANNELS = ("RGB", "grey")
COLUMNS = ("image", "class", "probability, %", "next")


def predict(
    model: Model,
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them at any depth.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes are told of each image.")] = 3,
    tracking_uri: TrackingUri = None,
    allow_factory: AllowFactory = False,
    json_only: Json = False,
) -> None:
    """Name the class of images, with probabilities, by a student that stillhouse exported.

    The file itself says how images are prepared and what its classes are called. Images that cannot be read
    are named, the others are answered all the same, and the exit status is 1 then.
    """
    from orchestrator.pipeline.shipped.named import opened
    from orchestrator.pipeline.shipped.predictions import image_files, predicted
    from orchestrator.terminal.console import Console

    console = Console(json_only=json_only)
    files = image_files(images)
    with (
        opened(model, tracking_uri=tracking_uri, allow_factory=allow_factory) as student,
        console.progress("images", len(files)) as progress,
    ):
        answers, unread = predicted(student, files, top=top, tell=progress.update)
    _show(answers, unread, student.document, console)
    console.result(
        {
            "model": model,
            "file": student.file.name,
            "runtime": student.runtime,
            "classes": list(student.classes),
            "images": [answer.plain() for answer in answers],
            "unreadable": [image.plain() for image in unread],
        }
    )
    if unread:
        raise typer.Exit(ConfigError.exit_code if not answers else 1)


def _show(
    answers: Sequence[ImageAnswer],
    unread: Sequence[UnreadImage],
    document: StudentDocument,
    console: Console,
) -> None:
    from orchestrator.terminal.formatting import counted

    rows = [_row(answer) for answer in answers]
    if rows:
        console.table(counted(len(rows), "image"), COLUMNS, rows)
    channels, height, width = document.input_shape
    if document.preparation is None or document.preparation.channels not in NAMED_CHANNELS:
        read_as = NAMED_CHANNELS[-1] if channels == 1 else NAMED_CHANNELS[0]
        console.info(
            f"the student's data set does not say what its {counted(channels, 'channel')} are: files were "
            f"read as {read_as}; check that its images were"
        )
    scaled = sum(answer.was_scaled for answer in answers)
    if scaled:
        console.info(
            f"{counted(scaled, 'image')} had another size than {width}x{height} pixels, as all had that the "
            "student was trained on, and were scaled: answers may be worse than on such images"
        )
    for image in unread:
        console.info(f"{image.image} cannot be read: {image.why}")


def _row(answer: ImageAnswer) -> tuple[str, ...]:
    (name, share), *others = answer.top
    return answer.image, name, f"{100 * share:.2f}", ", ".join(f"{n} {100 * s:.2f}" for n, s in others)
