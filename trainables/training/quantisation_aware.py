"""A course that goes on from a trained student's weights, and computes as the student's int8 file will."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from trainables.models.fake_quantised.network import fake_quantise, measure_ranges
from trainables.models.fake_quantised.points import POINTS, find_points
from trainables.models.weights import load_weights
from trainables.tensors import to_device
from trainables.training.course import Course
from trainables.training.workbench import Workbench
from trainables.views.normalise import normalise

MEASURED_IMAGES: Final = 256
"""Training images on which ranges are measured first; a static file is calibrated on as many."""
_TOGETHER: Final = 32


def quantisation_aware(course: Course, weights: Path, workbench: Workbench) -> tuple[Course, dict[str, str]]:
    """The course with fake quantisation put on its student, and what the file of its weights has to say.

    The student has the weights of the file. Ranges of its activations are those of clean training images,
    spread evenly over the split, and follow the batches from there on.

    Raises:
        CheckpointError: the weights do not fit.
        StillhouseError: the student cannot be quantised.
    """
    student = course.model
    load_weights(student, weights)
    points = find_points(student, workbench.input_shape)
    fake_quantise(student.to(workbench.device), points)
    measure_ranges(student, _images(workbench))
    return replace(course, forward=None, tap=None), {POINTS: points.model_dump_json()}


def _images(workbench: Workbench) -> Iterator[Tensor]:
    data, count = workbench.data, min(MEASURED_IMAGES, workbench.n_train)
    rows = torch.linspace(0, workbench.n_train - 1, count).long()
    for rows_B in torch.split(rows, _TOGETHER):
        images = to_device(data.train.images[rows_B], workbench.device)
        yield normalise(images, data.mean, data.std)
