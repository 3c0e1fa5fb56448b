"""The images on which champion and teacher disagree most confidently, as pictures with both answers."""

from __future__ import annotations

import base64
import io
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from orchestrator.reports.charts.answered import CHAMPION
from orchestrator.reports.markup import text
from orchestrator.terminal.formatting import counted, percent
from trainables.evaluation.answers_file import KeptAnswers, NetworkAnswers

COARSE: Final = 64
"""Pixels: the dots of a smaller picture are shown as squares, and not blurred."""


class Given(NamedTuple):
    """One answer to an image."""

    who: str
    answer: str
    confidence: float
    is_right: bool


class Disagreement(NamedTuple):
    """One image, and what both say of it."""

    image: int
    """Its row in the part of the data set that it comes from."""
    true_class: str
    given: tuple[Given, Given]
    picture: NDArray[np.uint8] | None
    """HxWx1 or HxWx3; none where the data set's images cannot be looked at."""


def disagreements(kept: KeptAnswers) -> list[Disagreement]:
    """Those that are shown, the most confident first; none without a teacher."""
    teacher = kept.teacher
    if teacher is None:
        return []
    return [
        Disagreement(
            int(kept.ids_N[row]),
            kept.classes[kept.labels_N[row]],
            (_given(kept, kept.student, CHAMPION, row), _given(kept, teacher, "teacher", row)),
            kept.pictures_KHWD[number] if len(kept.pictures_KHWD) else None,
        )
        for number, row in enumerate(kept.shown_K.tolist())
    ]


def disagreement_counts(kept: KeptAnswers) -> str:
    """How many there are, and who is right, in a sentence; empty without a teacher."""
    if kept.teacher is None:
        return ""
    own_N, taught_N, labels_N = kept.student.answers_N, kept.teacher.answers_N, kept.labels_N
    differ_N = own_N != taught_N
    count = int(differ_N.sum())
    if not count:
        return f"Champion and teacher give all {counted(len(labels_N), 'test image')} the same class."
    right = [int((differ_N & (each == labels_N)).sum()) for each in (own_N, taught_N)]
    return (
        f"Champion and teacher give {count:,} of {counted(len(labels_N), 'test image')} different classes "
        f"({percent(count / len(labels_N))} %): the champion is right in {right[0]:,} of them, the teacher "
        f"in {right[1]:,}, and neither in {count - sum(right):,}."
    )


def pictures_markup(found: list[Disagreement]) -> str:
    """The images with their captions, as a list."""
    return f'<ul class="pictures">{"".join(map(_item, found))}</ul>' if found else ""


def _given(kept: KeptAnswers, network: NetworkAnswers, who: str, row: int) -> Given:
    answer = int(network.answers_N[row])
    return Given(
        who, kept.classes[answer], float(network.confidence_N[row]), answer == int(kept.labels_N[row])
    )


def _item(one: Disagreement) -> str:
    lines = "".join(
        f"<span>{each.who}: {text(each.answer)}, {100 * each.confidence:.1f} %"
        f"{' (right)' if each.is_right else ''}</span>"
        for each in one.given
    )
    name = f"Test image {one.image}"
    about = f"<span>{name}: <b>{text(one.true_class)}</b></span>"
    return f"<li>{_image(one, f'{name}, of class {one.true_class}')}<div>{about}{lines}</div></li>"


def _image(one: Disagreement, told: str) -> str:
    if one.picture is None:
        return ""
    height, width, _ = one.picture.shape
    kind = ' class="coarse"' if max(height, width) < COARSE else ""
    data = base64.b64encode(_png(one.picture)).decode()
    return (
        f'<img{kind} alt="{text(told)}" width="{width}" height="{height}" src="data:image/png;base64,{data}">'
    )


def _png(picture: NDArray[np.uint8]) -> bytes:
    pixels: Any = picture[:, :, 0] if picture.shape[2] == 1 else picture
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, format="PNG", optimize=True)
    return written.getvalue()
