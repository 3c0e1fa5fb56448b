"""An exported student on images with labels: accuracy, calibration, each class, and the confusions."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure
from pydantic import Field
from torch import Tensor

from orchestrator.pipeline.shipped.labelled_images import LabelledImages
from orchestrator.pipeline.shipped.predictions import UnreadImage
from orchestrator.terminal.console import Console
from orchestrator.terminal.formatting import counted, percent
from trainables.config import Config
from trainables.errors import ConfigError
from trainables.evaluation.confusion import Answers, answers_of, confusion_matrix, reliability_bins
from trainables.evaluation.metrics import answer_figures
from trainables.export.opening import OpenedStudent
from trainables.local_files import replace_file, replace_text

PICTURES: Final = (".png", ".svg")
_NAMED: Final = 5
_SHOWN: Final = 40
"""Classes that a person reads; `--json` has all."""
_COLUMNS: Final = ("class", "images", "accuracy, %", "precision, %", "most often taken for")
_BLUE, _GREY, _RED = "#0072b2", "#666666", "#d55e00"
"""Of the palette of Okabe and Ito, which colour-blind people can tell apart."""


class ClassFigures(Config):
    """One class of the student."""

    name: str = Field(description="of the class")
    images: int = Field(description="that are of it")
    accuracy: float | None = Field(description="share of them that is named rightly; none without images")
    precision: float | None = Field(
        description="share that is right of the images that are given its name; none where it is never given"
    )


class ConfidenceBin(Config):
    """Images whose confidence, the probability of the class that is named, lies between two bounds."""

    lower: float
    upper: float
    samples: int
    confidence: float | None = Field(description="mean; none of an empty bin")
    accuracy: float | None = Field(description="none of an empty bin")


class UnreadFile(Config):
    """An image file that cannot be read."""

    image: str
    why: str


class StudentOnImages(Config):
    """All that `stillhouse evaluate MODEL` found."""

    model: str
    runtime: str
    data: str
    images: int
    accuracy: float
    balanced_accuracy: float | None = Field(
        None, description="where classes are uneven", exclude_if=lambda value: value is None
    )
    nll: float = Field(description="mean cross-entropy, nats")
    ece: float = Field(description="expected calibration error, 15 bins")
    classes: tuple[ClassFigures, ...] = Field(description="in the order of the student's logits")
    confusion: tuple[tuple[int, ...], ...] = Field(
        description="row: the class that an image is of; column: the class that is named"
    )
    reliability: tuple[ConfidenceBin, ...]
    unreadable: tuple[UnreadFile, ...] = Field((), description="left out")


def evaluate_on_images(
    name: str, student: OpenedStudent, images: LabelledImages, console: Console
) -> StudentOnImages:
    """What a student, which goes by this name, answers on images with labels.

    Raises:
        CheckpointError: it cannot take them.
        DataError: none of them can be read.
    """
    unread: list[UnreadImage] = []
    with console.progress("images", len(images)) as progress:
        answers = answers_of(_watched(images.answers(student), unread, progress.update))
    matrix = confusion_matrix(answers, len(student.classes))
    return StudentOnImages(
        model=name,
        runtime=student.runtime,
        data=images.name,
        images=len(answers.labels_N),
        **answers.figures(),
        balanced_accuracy=answer_figures(answers.answers_N, answers.labels_N).get("balanced_accuracy"),
        classes=_class_figures(student.classes, matrix),
        confusion=tuple(tuple(row) for row in matrix.tolist()),
        reliability=_bins(answers),
        unreadable=tuple(UnreadFile(image=each.image, why=each.why) for each in unread),
    )


def show_images(found: StudentOnImages, console: Console) -> None:
    """The same for people: the figures, and a row for each class."""
    uneven = "" if found.balanced_accuracy is None else f" (classes alike {percent(found.balanced_accuracy)})"
    console.info(
        f"{found.model} on {counted(found.images, 'image')}, {found.data}: "
        f"accuracy {percent(found.accuracy)} %{uneven}, nll {found.nll:.4f}, ece {found.ece:.4f}"
    )
    places = list(range(len(found.classes)))
    if len(places) > _SHOWN:
        places = sorted(places, key=lambda place: _worst_first(found.classes[place]))[:_SHOWN]
    title = "each class" if len(places) == len(found.classes) else f"the worst {_SHOWN} classes"
    console.table(title, _COLUMNS, [_class_row(found, place) for place in places])
    for image in found.unreadable:
        console.info(f"{image.image} is left out, it cannot be read: {image.why}")


def write_confusion(found: StudentOnImages, path: Path) -> None:
    """The confusion matrix as CSV: a row for each class that images are of, a column for each answer."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [each.name for each in found.classes]
    writer.writerow(["is \\ named", *names])
    writer.writerows([name, *row] for name, row in zip(names, found.confusion, strict=True))
    replace_text(path, text.getvalue())


def write_reliability(found: StudentOnImages, path: Path) -> None:
    """The reliability diagram as PNG or SVG: accuracy by confidence, and how many images each bin has.

    Raises:
        ConfigError: the file's name ends in neither.
    """
    require_picture(path)
    figure = Figure(figsize=(5.2, 5.6), layout="constrained")
    axes: Any = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    upper, lower = axes
    full = [each for each in found.reliability if each.samples]
    wide = full[0].upper - full[0].lower
    middles = [(each.lower + each.upper) / 2 for each in full]
    upper.bar(middles, [each.accuracy or 0.0 for each in full], 0.92 * wide, color=_BLUE, label="accuracy")
    upper.plot([0, 1], [0, 1], color=_RED, linestyle="--", label="accuracy = confidence")
    upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
    figure.suptitle(f"{found.images:,} images, ece {found.ece:.4f}")
    upper.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    counts = lower.bar(middles, [each.samples for each in full], 0.92 * wide, color=_GREY)
    lower.bar_label(counts, fontsize="x-small")
    lower.margins(y=0.3)
    lower.set(xlabel="confidence", ylabel="images")
    content = io.BytesIO()
    # Without the date, so that the same figures give the same file.
    figure.savefig(content, format=path.suffix[1:], dpi=150, metadata=_without_date(path))
    replace_file(path, content.getvalue())


def require_picture(path: Path) -> None:
    """Refuse a name that ends in neither .png nor .svg.

    Raises:
        ConfigError: naming it.
    """
    if path.suffix not in PICTURES:
        raise ConfigError(f"{path} is to be a diagram; let its name end in {' or '.join(PICTURES)}")


def _without_date(path: Path) -> dict[str, str | None]:
    return {"Date": None} if path.suffix == ".svg" else {}


def _watched(
    batches: Iterator[tuple[Tensor, Tensor, list[UnreadImage]]],
    unread: list[UnreadImage],
    tell: Callable[[int], None],
) -> Iterator[tuple[Tensor, Tensor]]:
    done = 0
    for logits_BC, labels_B, left_out in batches:
        done += len(labels_B) + len(left_out)
        unread += left_out
        tell(done)
        if len(labels_B):
            yield logits_BC, labels_B


def _class_figures(classes: tuple[str, ...], matrix_CC: Tensor) -> tuple[ClassFigures, ...]:
    right, of_it, named = matrix_CC.diagonal(), matrix_CC.sum(dim=1), matrix_CC.sum(dim=0)
    return tuple(
        ClassFigures(
            name=name,
            images=int(of_it[place]),
            accuracy=_share(right[place], of_it[place]),
            precision=_share(right[place], named[place]),
        )
        for place, name in enumerate(classes)
    )


def _share(part: Tensor, whole: Tensor) -> float | None:
    return float(part) / float(whole) if whole else None


def _bins(answers: Answers) -> tuple[ConfidenceBin, ...]:
    return tuple(ConfidenceBin(**asdict(each)) for each in reliability_bins(answers))


def _worst_first(one: ClassFigures) -> tuple[bool, float]:
    return one.accuracy is None, one.accuracy or 0.0


def _class_row(found: StudentOnImages, place: int) -> tuple[str, ...]:
    one, row = found.classes[place], found.confusion[place]
    others = sorted((-count, other) for other, count in enumerate(row) if count and other != place)
    taken = ", ".join(f"{found.classes[other].name} ({-count})" for count, other in others[:_NAMED])
    accuracy = "" if one.accuracy is None else percent(one.accuracy)
    return (
        one.name,
        f"{one.images:,}",
        accuracy,
        "" if one.precision is None else percent(one.precision),
        taken,
    )
