"""What a training step of each objective costs here, over one of cross-entropy, with the answers at hand."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn

from trainables.config import (
    OBJECTIVE_CONFIGS,
    BankConfig,
    CeConfig,
    CropFlipStep,
    ModelConfig,
    ModelName,
    Need,
    ObjectiveBase,
    TrainingConfig,
    ViewsConfig,
    digest_of,
)
from trainables.config.cache import LOGITS
from trainables.config.representation.preparation import BRANCH, SS_HEAD
from trainables.data import ImageSplit, TrainingData
from trainables.errors import StillhouseError
from trainables.models import build_model
from trainables.models.embedding import classifier_of, embedding_width_of
from trainables.signals import TeacherClassifier, TeacherSignal
from trainables.teacher.features import TeacherFeatures
from trainables.teacher.live import LiveTeacher
from trainables.teacher.online import OnlineTeacher
from trainables.training.course import Course, Trained
from trainables.training.loop import train
from trainables.training.workbench import Workbench

# B = samples in the batch, N = training samples, C = classes

CLASSES: Final = 10
SIDE: Final = 28
BATCH: Final = 64
STEPS: Final = 4
"""Timed in a turn; one before them also makes the optimiser's buffers."""
ROUNDS: Final = 3
N_TRAIN: Final = BATCH * (STEPS + 2)
STUDENT: Final = ModelConfig(name=ModelName.RESNET8, width=16)
TEACHER: Final = ModelConfig(name=ModelName.RESNET14, width=32)
CROP: Final = CropFlipStep(op="crop_flip", padding=2)
VIEWS: Final = ViewsConfig(weak=BankConfig(recipe=(CROP,)), strong=BankConfig(recipe=(CROP,)))


class RandomTeacher(OnlineTeacher):
    """Gives random answers of the shapes that a teacher's have, gathered by row as from a cache in memory."""

    def __init__(self, module: nn.Module, data: TrainingData, device: torch.device) -> None:
        """The module is asked for its shapes alone."""
        super().__init__(LiveTeacher(module, data, seed=0, batch_size=BATCH, device=device), VIEWS)
        self._module, self._device = module, device
        self._kept: dict[tuple[str, str], Tensor] = {}

    def feature_shapes(self, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """Those of the module; what a preparation adds has the shapes of the module's own embedding."""
        width = embedding_width_of(self._module, CLASSES)
        prepared = {n: (4 * CLASSES,) for n in names if n.startswith(BRANCH)}
        prepared |= {n: (width,) for n in names if n == SS_HEAD}
        own = [name for name in names if name not in prepared]
        shapes: Mapping[str, tuple[int, ...]] = {}
        if own:
            shape = (1, SIDE, SIDE)
            tap = TeacherFeatures(
                self._module, own, n_classes=CLASSES, input_shape=shape, device=self._device, stated={}
            )
            shapes = tap.shapes
        return {**shapes, **prepared}

    def classifier(self) -> TeacherClassifier:
        """The module's own."""
        layer = classifier_of(self._module, CLASSES)
        weight_CD = layer.weight.detach().clone()
        return TeacherClassifier(weight_CD, torch.zeros(len(weight_CD), device=weight_CD.device))

    def signal(self, bank: str, view: int, rows_B: Tensor, features: Sequence[str] = ()) -> TeacherSignal:
        """The same numbers for the same rows of a bank each time."""
        logits_BC = self._of(bank, LOGITS)[rows_B]
        found = {name: self._of(bank, name)[rows_B] for name in features}
        return TeacherSignal(logits_BC, logits_BC.softmax(dim=-1).amax(dim=-1), found)

    def _of(self, bank: str, name: str) -> Tensor:
        if (bank, name) not in self._kept:  # shapes take a pass of the network: not in each timed step
            shape = (CLASSES,) if name == LOGITS else self.feature_shapes([name])[name]
            self._kept[bank, name] = torch.rand(N_TRAIN, *shape, device=self._device)
        return self._kept[bank, name]


def step_costs(on_objective: Callable[[str], None]) -> Iterator[tuple[str, float | str]]:
    """By objective at its defaults the ratio to cross-entropy, or why this student is not for it.

    Medians of steps that are taken in turns with those of cross-entropy, on noise. `on_objective` is called
    with each name before it is measured.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = _noise()
    workbench = Workbench(
        data, VIEWS, view_seed=0, device=device, cache=RandomTeacher(_network(TEACHER), data, device)
    )
    for name, kind in OBJECTIVE_CONFIGS.items():
        on_objective(name)
        try:
            yield name, _ratio(workbench, kind())
        except StillhouseError as error:
            yield name, str(error)


def _ratio(workbench: Workbench, objective: ObjectiveBase) -> float:
    student = STUDENT
    if Need.COSINE_HEAD in objective.needed:
        student = STUDENT.with_overrides(cosine_head=embedding_width_of(_network(TEACHER), CLASSES))
    course = Course(
        _network(student),
        objective,
        TrainingConfig(epochs=1, batch_size=BATCH),
        seed=0,
        peers=tuple(Trained(_network(student)) for _ in range(objective.n_networks - 1)),
    )
    plain = replace(course, model=_network(STUDENT), objective=CeConfig(), peers=())
    times_s: dict[bool, list[float]] = {True: [], False: []}
    for number in range(ROUNDS + 1):
        for is_own in (True, False) if number % 2 else (False, True):
            taken_s = _steps_s(course if is_own else plain, workbench)
            if number:  # the first round also renders the views
                times_s[is_own] += taken_s
    return statistics.median(times_s[True]) / statistics.median(times_s[False])


def _steps_s(course: Course, workbench: Workbench) -> list[float]:
    asked_at: list[float] = []

    def enough() -> bool:
        if workbench.device.type == "cuda":
            torch.cuda.synchronize()
        asked_at.append(time.perf_counter())
        return len(asked_at) > STEPS + 1

    train(course, workbench, on_epoch=lambda *_: None, should_stop=enough)
    return [after - before for before, after in pairwise(asked_at[1:])]


def _network(config: ModelConfig) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_model(config, n_classes=CLASSES, in_channels=1)


def _noise() -> TrainingData:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (N_TRAIN, 1, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, CLASSES, (N_TRAIN,), generator=generator)
    split = ImageSplit(images, labels, torch.arange(N_TRAIN))
    classes = tuple(str(number) for number in range(CLASSES))
    return TrainingData(split, split, classes, (0.5,), (0.25,), digest_of("noise"))
