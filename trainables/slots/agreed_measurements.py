"""What one slot found for all: a trial's precision, and the latency of an architecture."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from trainables.config import ModelConfig, TrainingPrecision, TrialSpec, digest_of
from trainables.data import TrainingData
from trainables.evaluation.profiling import device_name, profile_student
from trainables.training.packs.measure import PackChoice
from trainables.training.precision import ASKED_FOR, Chosen, by_table

Agree = Callable[[str, Callable[[], str]], str]
"""Called with a key and a way to find a value; gives the value that counts for all who ask for this key."""


def decide_alone(_key: str, find: Callable[[], str]) -> str:
    """The agreement of one who works alone."""
    return find()


class AgreedMeasurements:
    """Finds what a slot has to know on its device, unless another slot has done so before."""

    def __init__(self, device: torch.device, agree: Agree = decide_alone) -> None:
        """Nothing is found yet; `agree` makes what is found the same in all slots."""
        self._device = device
        self._agree = agree
        self._latencies_ms: dict[str, float] = {}
        self._packs: dict[str, PackChoice] = {}

    def precision(
        self, model: nn.Module, trial: TrialSpec, data: TrainingData, code: str | None = None
    ) -> Chosen:
        """What the trial's precision comes to, by the recipe or the table; the model is the trial's student.

        `code` is that of the student, where it was edited.

        It is agreed on for each kind of device and shape, and so kept with the experiment: a run that goes
        on trains as it began, also where an earlier version measured, or another table was in force.
        """
        wish = trial.training.precision
        if wish is not TrainingPrecision.AUTO:
            return Chosen(wish, ASKED_FOR)
        key = f"precision/{device_name(self._device)}/{shape_digest(trial, data)}{_of(code)}"
        return Chosen.read(
            self._agree(key, lambda: str(by_table(model, self._device, data.train.image_shape)))
        )

    def latency_ms(
        self,
        student: ModelConfig,
        build: Callable[[], nn.Module],
        data: TrainingData,
        code: str | None = None,
    ) -> float:
        """Measured once per architecture, agreed by all: a second measurement would differ by its noise.

        On one kind of device only, whichever it is: latencies of two kinds do not compare anyway. `build`
        gives a network of the architecture.

        Raises:
            StillhouseError: the network cannot take such an input.
        """
        images = list(data.train.image_shape)
        key = f"latency_ms/{digest_of([student.plain(), len(data.classes), images])[:16]}{_of(code)}"
        if key not in self._latencies_ms:

            def find() -> str:
                with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
                    model = build().to(self._device)
                    figures = profile_student(model, input_shape=data.train.image_shape, with_batch=False)
                return repr(figures.latency_ms)

            self._latencies_ms[key] = float(self._agree(key, find))
        return self._latencies_ms[key]

    def pack(
        self,
        trial: TrialSpec,
        data: TrainingData,
        what: str,
        code: str | None,
        find: Callable[[], str],
    ) -> PackChoice:
        """How students of this shape are trained at once: measured once, on one slot, agreed by all.

        `what` says which views they see, and what the experiment asks for.
        """
        key = f"pack/{device_name(self._device)}/{what}/{shape_digest(trial, data)}{_of(code)}"
        if key not in self._packs:
            self._packs[key] = PackChoice.read(self._agree(key, find))
        return self._packs[key]


def shape_digest(trial: TrialSpec, data: TrainingData) -> str:
    """Of all that a step's speed depends on: the student, its frozen parts, classes, batch and images."""
    images, frozen = list(data.train.image_shape), trial.training.freeze
    inputs = [trial.student.plain(), len(data.classes), trial.training.batch_size, images]
    return digest_of([*inputs, *([list(frozen)] if frozen else [])])[:16]


def _of(code: str | None) -> str:
    return "" if code is None else f"/{code[:16]}"
