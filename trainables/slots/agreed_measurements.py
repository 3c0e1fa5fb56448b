"""What one slot measures for all: a trial's precision, and the latency of an architecture."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from trainables.config import ModelConfig, TrainingPrecision, TrialSpec, digest_of
from trainables.data import TrainingData
from trainables.evaluation.profiling import device_name, profile_student
from trainables.training.precision import has_fast_bf16, measure_precision

Agree = Callable[[str, Callable[[], str]], str]
"""Called with a key and a way to find a value; gives the value that counts for all who ask for this key."""


def decide_alone(_key: str, find: Callable[[], str]) -> str:
    """The agreement of one who works alone."""
    return find()


class AgreedMeasurements:
    """Measures what a slot has to know on its device, unless another slot has done so before."""

    def __init__(self, device: torch.device, agree: Agree = decide_alone) -> None:
        """Nothing is measured yet; `agree` makes measured values the same in all slots."""
        self._device = device
        self._agree = agree
        self._precisions: dict[str, TrainingPrecision] = {}
        self._latencies_ms: dict[str, float] = {}

    def precision(self, model: nn.Module, trial: TrialSpec, data: TrainingData) -> TrainingPrecision:
        """What the trial's precision comes to: measured once per kind of device and shape, agreed by all.

        The model is the trial's student.
        """
        wish = trial.training.precision
        if wish is not TrainingPrecision.AUTO:
            return wish
        if not has_fast_bf16(self._device):
            return TrainingPrecision.FP32
        key = f"precision/{device_name(self._device)}/{shape_digest(trial, data)}"
        if key not in self._precisions:

            def find() -> str:
                figures = measure_precision(
                    model,
                    batch_size=trial.training.batch_size,
                    input_shape=_input_shape(data),
                    device=self._device,
                )
                return figures.choice.value

            self._precisions[key] = TrainingPrecision(self._agree(key, find))
        return self._precisions[key]

    def latency_ms(self, student: ModelConfig, build: Callable[[], nn.Module], data: TrainingData) -> float:
        """Measured once per architecture, agreed by all: a second measurement would differ by its noise.

        On one kind of device only, whichever it is: latencies of two kinds do not compare anyway. `build`
        gives a network of the architecture.

        Raises:
            StillhouseError: the network cannot take such an input.
        """
        images = list(_input_shape(data))
        key = f"latency_ms/{digest_of([student.plain(), len(data.classes), images])[:16]}"
        if key not in self._latencies_ms:

            def find() -> str:
                with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
                    model = build().to(self._device)
                    figures = profile_student(model, input_shape=_input_shape(data))
                return repr(figures.latency_ms)

            self._latencies_ms[key] = float(self._agree(key, find))
        return self._latencies_ms[key]


def shape_digest(trial: TrialSpec, data: TrainingData) -> str:
    """Of all that a step's speed depends on: the student, its classes, the batch and the images."""
    images = list(_input_shape(data))
    return digest_of([trial.student.plain(), len(data.classes), trial.training.batch_size, images])[:16]


def _input_shape(data: TrainingData) -> tuple[int, int, int]:
    channels, height, width = (int(side) for side in data.train.images.shape[1:])
    return channels, height, width
