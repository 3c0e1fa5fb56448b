"""Teacher and students before anything is trained: built, shown one batch, and exported untrained."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from orchestrator.config.asked_features import student_askers, untaught_comparisons
from orchestrator.config.constraints import Condition, parse_constraints, violated
from orchestrator.config.peers import groups_of_peers
from orchestrator.pipeline.context import Run
from orchestrator.pipeline.export import sample_images
from orchestrator.records.teacher_checks import require_better_than_chance
from orchestrator.terminal.formatting import percent
from trainables.config import ModelConfig, ModelName, TeacherSource
from trainables.data import ImageSplit, TrainingData
from trainables.errors import ConfigError, StillhouseError, TrialFailed
from trainables.evaluation.chance import against_chance
from trainables.evaluation.features_worth import NoFeatures, Shown, embeddings
from trainables.evaluation.metrics import answers
from trainables.export.formats import check_export
from trainables.models import build_model, check_logits
from trainables.models.foreign.image_sizes import side_to_show, size_argument
from trainables.models.foreign.onnx_network import adapted_by
from trainables.models.foreign.start import start_from
from trainables.models.foreign.stated_sizes import stated_size
from trainables.models.weights import count_parameters, load_weights
from trainables.seeds import first_by_hash, salt_of
from trainables.teacher.loading import load_onnx
from trainables.teacher.preprocessing import n_outputs, shown_as_trained
from trainables.training.course import Trained
from trainables.training.learners.fine_tuning import fine_tuning
from trainables.training.learners.peers import require_objective
from trainables.training.step_inputs import student_tap
from trainables.views.normalise import normalise

BATCH: Final = 4
LOOKED_AT: Final = 256
"""Images of the selection split that a loaded teacher is asked about; the stage `teacher` asks about all."""
PARAMS: Final = "params"
_SALT: Final = salt_of("preflight/selection")


@dataclass(frozen=True)
class NetworkChecks:
    """What is asked of networks for one data set."""

    run: Run
    data: TrainingData

    def teacher(self) -> list[str]:
        """Build it, with its weights where they exist; how good it is on some images, where it is loaded.

        And how it was adapted to the images.

        Raises:
            StillhouseError: it cannot be built or loaded, nobody says what its images were normalised by, it
                lacks classes, does not give logits of them, or is right no more often than by chance.
        """
        source, batch_size = self.run.teacher_source, self.run.experiment.training.eval_batch_size
        network = shown_as_trained(self._loaded(source), source, self.data)
        name = "teacher (ONNX)" if source.model is None else _named("teacher", source.model)
        check_logits(network, self._images(), n_classes=len(self.data.classes), name=name)
        notes = [f"teacher: {done}" for done in adapted_by(network)]
        if source.model is not None:
            notes += [*self._adapted(network, source.model, "teacher"), *self._shown_otherwise(source.model)]
            if not source.is_loaded and source.model.name is ModelName.TRANSFORMERS:
                notes.append(f"{name}: trained from random weights; `checkpoint: published` takes its own")
        if not source.is_loaded:
            return notes
        some = _some(self.data.selection, LOOKED_AT)
        mean, std, device = self.data.mean, self.data.std, torch.device("cpu")
        found_N = answers(network, some, mean=mean, std=std, batch_size=batch_size, device=device)
        found = against_chance(found_N, some.labels)
        require_better_than_chance(found, expected=self.run.experiment.teacher.expected_accuracy)
        return [
            *notes,
            f"teacher: right on {percent(found.right / found.images)} % of {found.images} selection images "
            f"({self.run.experiment.teacher.checkpoint or (source.model and source.model.factory)})",
        ]

    def _loaded(self, source: TeacherSource) -> nn.Module:
        """The network of a teacher as it is, with its weights where they exist."""
        outputs = n_outputs(source, self.data)
        if source.model is None:
            return load_onnx(str(source.checkpoint), self.data, n_outputs=outputs, output=source.output)
        network = self._built(source.model, outputs)
        if source.checkpoint is not None:
            load_weights(network, Path(source.checkpoint))
        return network

    def student(self, config: ModelConfig) -> list[str]:
        """Build it, with the weights that it starts from, and show it a batch.

        What it starts from, and how it was adapted to the images.

        Raises:
            StillhouseError: it cannot be built, its weights do not fit, it does not give logits of the
                classes, or lacks a feature that an objective of the space compares.
        """
        network, start, notes = self._built(config), self.run.start, []
        if start is not None:
            fresh = start_from(network, start, classes=self.data.classes)
            head = f"but for its head, which is fresh ({', '.join(fresh)})" if fresh else "head and all"
            notes.append(
                f"{_named('student', config)}: starts from {self.run.experiment.student.checkpoint}, {head}"
            )
        self._check_logits(network, config, "student")
        self._check_features(network, config)
        self._check_asked(network, config)
        try:
            fine_tuning(network, self.run.experiment.training, len(self.data.classes))
        except ConfigError as error:
            raise ConfigError(f"{_named('student', config)}: {error}") from error
        return [*notes, *self._adapted(network, config, "student")]

    def peer(self, role: str, config: ModelConfig, objectives: Collection[str]) -> list[str]:
        """Build a network that objectives train beside students, and show it a batch; how it was adapted.

        Raises:
            StillhouseError: it cannot be built, does not give logits of the classes, or lacks a feature that
                one of these objectives compares.
        """
        network = self._built(config)
        self._check_logits(network, config, role)
        self._check_asked(network, config, role, objectives)
        return self._adapted(network, config, role)

    def together(self, config: ModelConfig) -> None:
        """Make once what objectives without a teacher make of a student and its peers: branches, for one.

        Raises:
            ConfigError: a trial of one of them could not.
        """
        space, student = self.run.space, self._untrained(config)
        for name, objective in untaught_comparisons(space):
            for beside, peers in groups_of_peers(self.run.experiment.peers, space, name, config):
                networks = [student, *(student if p == config else self._untrained(p) for p in peers)]
                try:
                    require_objective(objective, networks, self.data)
                except TrialFailed as error:
                    whose = f"{_named('student', config)}{beside}"
                    raise ConfigError(f"{whose}: objective {name} of space {space.name}: {error}") from error

    def export(self, config: ModelConfig) -> None:
        """Export a student untrained, and compare the files with it on the images that `export_stage` takes.

        Raises:
            StillhouseError: a format cannot be written, or differs.
        """
        model, images = self._built(config), sample_images(self.data)
        try:
            check_export(model, rebuild=lambda: self._built(config), sample_images=images)
        except StillhouseError as error:
            raise StillhouseError(f"{_named('student', config)}: {error}") from error

    def require_small_enough(self) -> None:
        """Refuse a bound on parameters that leaves no student to pick.

        Of a range of widths both ends are tried: parameters grow with the width.

        Raises:
            ConfigError: no student of the space keeps it.
        """
        bounds = bounds_on_params(self.run)
        if not bounds:
            return
        own = self.run.experiment.student.network
        students = [own.with_overrides(**corner) for corner in self.run.space.student.corners()]
        found = sorted(count_parameters(self._built(student)) for student in students)
        if all(violated(bounds, {PARAMS: count}) for count in found):
            some = f"{found[0]:,}" if found[0] == found[-1] else f"{found[0]:,} to {found[-1]:,}"
            raise ConfigError(
                f"pick.where asks for {' and '.join(map(str, bounds))}, and the students of the space have "
                f"{some} parameters: none could be picked; change the bound, or `student`"
            )

    def students(self) -> Iterator[ModelConfig]:
        """The control's student, and one of each other kind that the space may propose."""
        control = self.run.student
        kinds = {_kind(control): control}
        for corner in self.run.space.student.corners():
            student = self.run.experiment.student.network.with_overrides(**corner)
            kinds.setdefault(_kind(student), student)
        yield from kinds.values()

    def _check_logits(self, network: nn.Module, config: ModelConfig, role: str) -> None:
        name = _named(role, config)
        check_logits(network, self._images(), n_classes=len(self.data.classes), name=name)

    def _check_features(self, network: nn.Module, config: ModelConfig) -> None:
        """Refuse a student without an embedding where the space ranks by what features are worth."""
        if not self.run.space.search.rank_by.is_of_features:
            return
        shown = Shown(self.data.mean, self.data.std, BATCH, torch.device("cpu"), config.features)
        some, n_classes = _some(self.data.train, BATCH), len(self.data.classes)
        try:
            embeddings(network, some, torch.arange(len(some.labels)), n_classes=n_classes, shown=shown)
        except NoFeatures as error:
            raise ConfigError(f"{_named('student', config)}: {error}") from error

    def _check_asked(
        self,
        network: nn.Module,
        config: ModelConfig,
        role: str = "student",
        objectives: Collection[str] | None = None,
    ) -> None:
        """Refuse a network without a feature that an objective of the space, or one of these, compares."""
        for name, objective in student_askers(self.run.space, objectives):
            try:
                student_tap(objective, network, self.data, torch.device("cpu"), config.features)
            except TrialFailed as error:
                raise ConfigError(
                    f"{_named(role, config)}: objective {name} of space {self.run.space.name}: {error}"
                ) from error

    def _adapted(self, network: nn.Module, config: ModelConfig, role: str) -> list[str]:
        """What a library's network is other than its name says, and where images are too small for it."""
        if not config.is_of_library:
            return []
        images, name = self._images(), _named(role, config)
        notes = []
        if images.shape[1] == 1:
            notes.append(
                f"{name}: its first convolution takes grey images; weights for colour are summed for it"
            )
        larger = None if size_argument(network) else side_to_show(network, images)
        if larger is not None:
            notes.append(
                f"{name}: of images of {min(images.shape[-2:])} pixels its last convolutions see 1x1; it is "
                f"made for larger ones: `resolution: {larger}` beside its `variant` enlarges them, at "
                "a price in time"
            )
        return notes

    def _shown_otherwise(self, model: ModelConfig) -> list[str]:
        """Where a loaded teacher is shown another size or cut than it states, with what to write."""
        data, name = self.run.experiment.data, _named("teacher", model)
        stated = stated_size(model, self.run.experiment.teacher.checkpoint)
        shown = model.resolution or int(self.data.train.images.shape[-1])
        if stated is None:
            return []
        if stated.side != shown:
            return [
                f"{name}: made for images of {stated.side} pixels ({stated.rule}), and shown {shown}; "
                f"`data: {{image_size: {stated.side}}}` shows it its own size, or `resolution: "
                f"{stated.side}` beside its `variant`, for it alone"
            ]
        if data.image_size != stated.side or data.resize == stated.resize:
            return []
        ours = "stretched" if data.resize == "stretch" else f"scaled to {data.resize or shown} and cut"
        return [
            f"{name}: made for images that were {stated.rule}, and shown some that are {ours}; "
            f"`data: {{resize: {stated.resize or stated.side}}}` brings them to it as it states"
        ]

    def _untrained(self, config: ModelConfig) -> Trained:
        return Trained(self._built(config), stated=config.features)

    def _images(self) -> Tensor:
        return normalise(self.data.train.images[:BATCH], self.data.mean, self.data.std)

    def _built(self, config: ModelConfig, outputs: int | None = None) -> nn.Module:
        channels = int(self.data.train.images.shape[1])
        with torch.random.fork_rng(devices=[]):
            return build_model(config, n_classes=outputs or len(self.data.classes), in_channels=channels)


def bounds_on_params(run: Run) -> list[Condition]:
    """What the champion's parameters must satisfy."""
    where = run.experiment.pick.where
    return [bound for bound in parse_constraints(where) if bound.fields == {PARAMS}] if where else []


def _named(role: str, config: ModelConfig) -> str:
    what = f"factory {config.factory!r}" if config.factory else str(config.variant or config.name)
    return f"{role} {what}"


def _kind(config: ModelConfig) -> tuple[object, ...]:
    return config.name, config.variant, config.factory, config.resolution, config.cosine_head is None


def _some(split: ImageSplit, count: int) -> ImageSplit:
    """So many samples, which their ids choose: a folder's first ones are of one class."""
    ids = first_by_hash(split.ids.numpy(), count, salt=_SALT)
    rows = torch.from_numpy(np.searchsorted(split.ids.numpy(), ids))
    return ImageSplit(split.images[rows], split.labels[rows], split.ids[rows])
