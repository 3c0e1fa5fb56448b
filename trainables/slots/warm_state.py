"""What a slot keeps loaded between its jobs: data, workbenches, compiled students, agreed measurements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from trainables.cache.node.reader import CacheReader, open_cache
from trainables.config import (
    BenchSpec,
    Cost,
    DataConfig,
    ModelConfig,
    OnlineSpec,
    TrainingPrecision,
    TrialSpec,
    digest_of,
)
from trainables.data import ImageSplit, TrainingData, load_training
from trainables.evaluation.profiling import device_name, profile_student
from trainables.models import build_model
from trainables.models.weights import count_parameters, load_weights
from trainables.seeds import derive_seed
from trainables.slots.compiled_students import CompiledStudents
from trainables.slots.lru_cache import Kept
from trainables.teacher.autocast import AutocastTeacher
from trainables.teacher.live import LiveTeacher
from trainables.teacher.online import OnlineTeacher
from trainables.training.loop import Course
from trainables.training.precision import has_fast_bf16, measure_precision
from trainables.training.workbench import Workbench, render_budget

MAX_BENCHES = 4
IDLE_BYTES = 2 << 30
"""What benches other than the one in use may hold together."""

Agree = Callable[[str, Callable[[], str]], str]
"""Called with a key and a way to find a value; gives the value that counts for all who ask for this key."""


def decide_alone(_key: str, find: Callable[[], str]) -> str:
    """The agreement of one who works alone."""
    return find()


class Bench:
    """Keeps data, workbenches and compiled students between jobs, within bounds."""

    def __init__(
        self, device: torch.device, *, agree: Agree = decide_alone, max_benches: int = MAX_BENCHES
    ) -> None:
        """Nothing is loaded yet; `agree` makes measured choices the same in all slots."""
        self._device = device
        self._agree = agree
        self._data: Kept[str, TrainingData] = Kept(max_benches)
        self._benches: Kept[str, Workbench] = Kept(
            max_benches, max_bytes=IDLE_BYTES, size=lambda bench: bench.held_bytes
        )
        self._students = CompiledStudents()
        self._answers: Kept[str, Tensor] = Kept(max_benches)
        self._precisions: dict[str, TrainingPrecision] = {}
        self._latencies_ms: dict[str, float] = {}

    def data(self, config: DataConfig) -> TrainingData:
        """Training data, loaded once."""
        return self._data.get(config.digest(), lambda: load_training(config))

    def workbench(self, spec: BenchSpec) -> Workbench:
        """The workbench of this spec; the last few are kept, as long as they hold little enough."""
        return self._benches.get(spec.digest(), lambda: self._open(spec))

    def build(self, model: ModelConfig, spec: BenchSpec, *, seed: int = 0) -> nn.Module:
        """A network for this bench's images and classes; its weights depend on the seed only."""
        data = self.data(spec.data)
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(seed, "weights"))
            return build_model(
                model, n_classes=len(data.classes), in_channels=int(data.train.images.shape[1])
            )

    def course(self, trial: TrialSpec, spec: BenchSpec) -> Course:
        """A trial's student with fresh weights, and how it is trained on this device.

        Raises:
            ConfigError: the student is to be compiled, and there is no compiler.
        """
        model = self.build(trial.student, spec, seed=trial.seed)
        precision = self.precision(model, trial, spec)
        if not trial.training.compile:
            return Course(model, trial.objective, trial.training, trial.seed, precision)
        key = f"{precision}/{self._shape_digest(trial, spec)}"
        student = self._students.take(key, model)
        return Course(student.model, trial.objective, trial.training, trial.seed, precision, student.forward)

    def precision(self, model: nn.Module, trial: TrialSpec, spec: BenchSpec) -> TrainingPrecision:
        """What the trial's precision comes to: measured once per kind of device and shape, agreed by all."""
        wish = trial.training.precision
        if wish is not TrainingPrecision.AUTO:
            return wish
        if not has_fast_bf16(self._device):
            return TrainingPrecision.FP32
        key = f"precision/{device_name(self._device)}/{self._shape_digest(trial, spec)}"
        if key not in self._precisions:

            def find() -> str:
                figures = measure_precision(
                    model,
                    batch_size=trial.training.batch_size,
                    input_shape=self.workbench(spec).input_shape,
                    device=self._device,
                )
                return figures.choice.value

            self._precisions[key] = TrainingPrecision(self._agree(key, find))
        return self._precisions[key]

    def costs(self, student: ModelConfig, spec: BenchSpec, wanted: Sequence[Cost]) -> dict[str, float]:
        """What a search weighs against this student's accuracy, under the names of metrics.

        Raises:
            StillhouseError: the network cannot take such an input.
        """
        measures = {
            Cost.PARAMS: lambda: float(count_parameters(self.build(student, spec))),
            Cost.LATENCY_MS: lambda: self._latency_ms(student, spec),
        }
        return {cost.metric: measures[cost]() for cost in wanted}

    def _latency_ms(self, student: ModelConfig, spec: BenchSpec) -> float:
        """Measured once per architecture, agreed by all: a second measurement would differ by its noise.

        On one kind of device only, whichever it is: latencies of two kinds do not compare anyway.
        """
        data = self.data(spec.data)
        images = list(data.train.images.shape[1:])
        key = f"latency_ms/{digest_of([student.plain(), len(data.classes), images])[:16]}"
        if key not in self._latencies_ms:

            def find() -> str:
                with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
                    model = self.build(student, spec).to(self._device)
                    figures = profile_student(model, input_shape=self.workbench(spec).input_shape)
                return repr(figures.latency_ms)

            self._latencies_ms[key] = float(self._agree(key, find))
        return self._latencies_ms[key]

    def _open(self, spec: BenchSpec) -> Workbench:
        cache: CacheReader | OnlineTeacher | None = None
        if spec.cache_uri:
            cache = open_cache(spec.cache_uri, manifest_sha=spec.cache_manifest)
        elif spec.online is not None:
            cache = self._online(spec.online, spec)
        return Workbench(
            self.data(spec.data),
            spec.views,
            view_seed=spec.view_seed,
            device=self._device,
            cache=cache,
            render_budget_bytes=render_budget(self._device),
        )

    def teacher_answers(self, teacher: OnlineSpec, spec: BenchSpec, split: ImageSplit) -> Tensor:
        """The class (int64, on the CPU) that the teacher gives each clean image; found out once a split."""

        def find() -> Tensor:
            module = self._loaded(teacher, spec).to(self._device)
            return self.workbench(spec).classes(module, split, batch_size=teacher.batch_size)

        return self._answers.get(digest_of([teacher.plain(), spec.data.plain(), split.ids.tolist()]), find)

    def _loaded(self, teacher: OnlineSpec, spec: BenchSpec) -> nn.Module:
        module = self.build(teacher.model, spec)
        load_weights(module, Path(teacher.weights))
        return AutocastTeacher(module) if teacher.autocast else module

    def _online(self, teacher: OnlineSpec, spec: BenchSpec) -> OnlineTeacher:
        live = LiveTeacher(
            self._loaded(teacher, spec),
            self.data(spec.data),
            seed=spec.view_seed,
            batch_size=teacher.batch_size,
            device=self._device,
        )
        return OnlineTeacher(live, spec.views, embedding=teacher.embedding)

    def _shape_digest(self, trial: TrialSpec, spec: BenchSpec) -> str:
        """Of all that a step's speed depends on: the student, its classes, the batch and the images."""
        data = self.data(spec.data)
        images = list(data.train.images.shape[1:])
        return digest_of([trial.student.plain(), len(data.classes), trial.training.batch_size, images])[:16]
