"""What a slot keeps loaded between its jobs: data, workbenches, compiled students, agreed measurements."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from trainables.cache.node.reader import open_cache
from trainables.config import (
    Cost,
    DataConfig,
    ModelConfig,
    ObjectiveBase,
    OnlineSpec,
    TrainingPrecision,
    TrialSpec,
    WorkbenchSpec,
    digest_of,
)
from trainables.data import ImageSplit, TrainingData, load_training
from trainables.errors import StillhouseError
from trainables.evaluation.confusion import Answers
from trainables.models import build_model
from trainables.models.foreign.start import start_from
from trainables.models.weights import count_parameters
from trainables.seeds import derive_seed
from trainables.slots.agreed_measurements import Agree, AgreedMeasurements, decide_alone, shape_digest
from trainables.slots.compiled_students import CompiledStudents
from trainables.slots.lru_cache import LruCache
from trainables.teacher.cache_request import stated_features
from trainables.teacher.live import LiveTeacher
from trainables.teacher.loading import online_teacher
from trainables.teacher.online import OnlineTeacher
from trainables.teacher.selection_answers import read_answers
from trainables.training.compute import Compute, compute_figures, compute_of, cross_entropy_of
from trainables.training.course import Course, Trained
from trainables.training.learners.peers import of_network
from trainables.training.loaded.teacher_answers import CacheBesideTeacher, Source
from trainables.training.packs.measure import PackChoice, fastest
from trainables.training.step_inputs import student_tap
from trainables.training.workbench import Workbench, render_budget

MAX_WORKBENCHES = 4
MAX_COUNTED = 256
IDLE_BYTES = 2 << 30
"""What workbenches other than the one in use may hold together."""

log = logging.getLogger(__name__)


class WarmState:
    """What a slot keeps between jobs, within bounds: data, workbenches and compiled students."""

    def __init__(
        self, device: torch.device, *, agree: Agree = decide_alone, max_workbenches: int = MAX_WORKBENCHES
    ) -> None:
        """Nothing is loaded yet; `agree` makes measured choices the same in all slots."""
        self._device = device
        self._measured = AgreedMeasurements(device, agree)
        self._data: LruCache[str, TrainingData] = LruCache(max_workbenches)
        self._workbenches: LruCache[str, Workbench] = LruCache(
            max_workbenches, max_bytes=IDLE_BYTES, size=lambda workbench: workbench.held_bytes
        )
        self._students = CompiledStudents()
        self._answers: LruCache[str, Answers] = LruCache(max_workbenches)
        self._counted: LruCache[str, Compute] = LruCache(MAX_COUNTED)
        self.of_stages: LruCache[str, Any] = LruCache(1)
        """What a stage keeps from one of its jobs to the next, as the teacher that answers."""

    def data(self, config: DataConfig) -> TrainingData:
        """Training data, loaded once."""
        return self._data.get(config.digest(), lambda: load_training(config))

    def workbench(self, spec: WorkbenchSpec) -> Workbench:
        """The workbench of this spec; the last few are kept, as long as they hold little enough."""
        return self._workbenches.get(spec.digest(), lambda: self._open(spec))

    def build(self, model: ModelConfig, spec: WorkbenchSpec, *, seed: int = 0) -> nn.Module:
        """A network for this workbench's images and classes; its weights depend on the seed only."""
        data = self.data(spec.data)
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(seed, "weights"))
            return build_model(
                model, n_classes=len(data.classes), in_channels=int(data.train.images.shape[1])
            )

    def course(self, trial: TrialSpec, spec: WorkbenchSpec) -> Course:
        """A trial's student with the weights that it starts with, and how it is trained on this device.

        Raises:
            CheckpointError: the file that students start from was changed, or does not fit.
            ConfigError: the student is to be compiled, and there is no compiler.
        """
        model = self.build(trial.student, spec, seed=trial.seed)
        data = self.data(spec.data)
        if spec.start is not None:
            start_from(model, spec.start, classes=data.classes)
        chosen = self._measured.precision(model, trial, data, spec.code)
        student = self._trained(model, chosen.precision, trial, data)
        return Course(
            student.model,
            trial.objective,
            trial.training,
            trial.seed,
            student.precision,
            forward=student.forward,
            tap=student.tap,
            precision_by=chosen.by,
            rank_by=trial.rank_by,
            stated=student.stated,
            peers=tuple(self._peer(trial, spec, number) for number in range(1, len(trial.peers) + 1)),
            fresh=functools.partial(self._fresh, trial, spec),
        )

    def pack_choice(self, trial: TrialSpec, spec: WorkbenchSpec, students: int | str) -> PackChoice:
        """How many students like this one are trained at once, and how: measured once for all slots.

        `students` is `cluster.students_per_slot`.

        Raises:
            StillhouseError: the student cannot be trained.
        """
        banks = "+".join(trial.objective.banks)  # a step's time hangs on the passes, hardly on the loss

        def find() -> str:
            course, workbench = self.course(trial, spec), self.workbench(spec)
            if isinstance(students, int):
                return str(fastest(course, workbench, most=students, exactly=True))
            return str(fastest(course, workbench))

        return self._measured.pack(trial, self.data(spec.data), f"{students}/{banks}", spec.code, find)

    def _peer(self, trial: TrialSpec, spec: WorkbenchSpec, number: int) -> Trained:
        """A network beside the student: its weights are random, whatever the student starts from."""
        data, config = self.data(spec.data), trial.peers[number - 1]
        own = trial.model_copy(update={"student": config})
        model = self.build(config, spec, seed=derive_seed(trial.seed, "peer", number))
        chosen = self._measured.precision(model, own, data, spec.code)
        with of_network(number):
            return self._trained(model, chosen.precision, own, data, number)

    def _fresh(self, trial: TrialSpec, spec: WorkbenchSpec, purpose: str, number: int) -> nn.Module:
        """A network of the shape of the student (0), or of a peer, with weights that hang on the purpose."""
        config = (trial.student, *trial.peers)[number]
        return self.build(config, spec, seed=derive_seed(trial.seed, purpose, number))

    def _trained(
        self,
        model: nn.Module,
        precision: TrainingPrecision,
        trial: TrialSpec,
        data: TrainingData,
        number: int = 0,
    ) -> Trained:
        """A network of a course, compiled where the recipe says so; `trial` has its shape as the student."""
        stated = trial.student.features
        if not trial.training.compile:
            return Trained(model, precision, stated=stated)
        names = "".join(f"/{name}" for name in trial.objective.student_features)
        place = f"/peer {number}" if number else ""  # networks of one shape that learn together are several
        compiled = self._students.take(
            f"{precision}/{shape_digest(trial, data)}{names}{place}",
            model.to(self._device),
            lambda network: student_tap(trial.objective, network, data, self._device, stated),
            together=1 + len(trial.peers),
        )
        return Trained(compiled.model, precision, compiled.forward, compiled.tap, stated)

    def costs(self, student: ModelConfig, spec: WorkbenchSpec, wanted: Sequence[Cost]) -> dict[str, float]:
        """What a search weighs against this student's accuracy, under the names of metrics.

        Raises:
            StillhouseError: the network cannot take such an input.
        """

        def build() -> nn.Module:
            return self.build(student, spec)

        measures = {
            Cost.PARAMS: lambda: float(count_parameters(build())),
            Cost.LATENCY_MS: lambda: self._measured.latency_ms(
                student, build, self.data(spec.data), spec.code
            ),
        }
        return {cost.metric: measures[cost]() for cost in wanted}

    def compute(self, course: Course, trial: TrialSpec, spec: WorkbenchSpec) -> dict[str, float]:
        """What an epoch of this trial computes, under the names of metrics; see `compute_of`.

        Each objective with its hyper-parameters and networks is counted once, and cross-entropy once for an
        architecture. All ranks of a slot must ask: what one of them cannot count, none can. It is a figure
        beside the training, so a network that cannot be counted is trained without it.

        Raises:
            StillhouseError: the training would fail with it too.
        """
        plain = cross_entropy_of(course)
        alone = trial.model_copy(update={"objective": plain.objective, "peers": ()})
        try:
            own, ce = (self._compute(*each, spec) for each in ((course, trial), (plain, alone)))
        except StillhouseError:
            raise
        except Exception:  # a user's network may refuse to be looked into
            log.exception("the compute of %s is not counted", trial.trial_id)
            return {}
        return compute_figures(own, ce)

    def _compute(self, course: Course, trial: TrialSpec, spec: WorkbenchSpec) -> Compute:
        networks = [network.plain() for network in (trial.student, *trial.peers)]
        recipe = [trial.training.batch_size, list(trial.training.freeze), trial.training.sampling]
        key = digest_of([spec.digest(), _what_counts(trial.objective), networks, recipe])
        return self._counted.get(key, lambda: compute_of(course, self.workbench(spec)))

    def _open(self, spec: WorkbenchSpec) -> Workbench:
        self.of_stages = LruCache(1)  # let go: students need the memory
        cache: Source | None = None
        if spec.cache_uri:
            cache = open_cache(spec.cache_uri, manifest_sha=spec.cache_manifest, kept=spec.kept)
            if (beside := spec.beside) is not None:
                cache = CacheBesideTeacher(cache, functools.cache(lambda: self._online(beside, spec)))
        elif spec.online is not None:
            cache = self._online(spec.online, spec)
        workbench = Workbench(
            self.data(spec.data),
            spec.views,
            view_seed=spec.view_seed,
            device=self._device,
            cache=cache,
            render_budget_bytes=render_budget(self._device),
        )
        if spec.selection_answers is not None:
            workbench.compare_with(read_answers(spec.selection_answers, workbench.data))
        return workbench

    def teacher_answers(self, teacher: OnlineSpec, spec: WorkbenchSpec, split: ImageSplit) -> Answers:
        """What the teacher says of each clean image of a split; found out once."""

        def find() -> Answers:
            module = online_teacher(teacher, self.data(spec.data)).to(self._device)
            return self.workbench(spec).answers(module, split, batch_size=teacher.batch_size)

        return self._answers.get(digest_of([teacher.plain(), spec.data.plain(), split.ids.tolist()]), find)

    def _online(self, teacher: OnlineSpec, spec: WorkbenchSpec) -> OnlineTeacher:
        data = self.data(spec.data)
        live = LiveTeacher(
            online_teacher(teacher, data),
            data,
            seed=spec.view_seed,
            batch_size=teacher.batch_size,
            device=self._device,
            stated=stated_features(teacher.network),
        )
        return OnlineTeacher(live, spec.views)


def _what_counts(objective: ObjectiveBase) -> dict[str, object]:
    """What an objective's operations hang on: of a number with a fraction, whether it leaves a term out."""
    return {name: value > 0 if isinstance(value, float) else value for name, value in dict(objective).items()}
