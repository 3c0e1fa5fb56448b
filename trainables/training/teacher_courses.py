"""Ways to train a teacher that students will hear more of, or find it easier to follow."""

# B = images, C = classes, D = numbers in an embedding

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from trainables.config import CeConfig, ModelConfig, TrainingConfig, digest_of
from trainables.config.objective_base import Preparation
from trainables.config.representation.preparation import PrepareBranchesConfig, PreparedPart
from trainables.errors import ConfigError
from trainables.models import build_model
from trainables.models.embedding import classifier_of
from trainables.models.weights import load_weights, save_weights
from trainables.seeds import derive_seed
from trainables.teacher.prepared import extended, part_digest
from trainables.training.course import Course
from trainables.training.loop import train
from trainables.training.progress.checkpoints import CheckpointFolder
from trainables.training.workbench import Workbench

OnEpoch = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class TeacherCourse:
    """How a teacher is trained here, and where its states are kept."""

    training: TrainingConfig
    seed: int
    workbench: Workbench
    files: CheckpointFolder
    on_epoch: OnEpoch


def train_plainly(model: nn.Module, course: TeacherCourse) -> None:
    """By the labels, as a student is without a teacher.

    Raises:
        TrialFailed: the training diverged.
    """
    train(
        Course(model, CeConfig(), course.training, course.seed),
        course.workbench,
        on_epoch=course.on_epoch,
        files=course.files,
    )


def train_with_branches(model: nn.Module, course: TeacherCourse, config: ModelConfig) -> PreparedPart:
    """HSAKD's Teacher*: the network learns labels, and its stages labels of class and turn, all at once.

    The weights of the branches are kept beside those of the teacher.

    Raises:
        CacheError: the network has no stages.
        TrialFailed: the training diverged.
    """
    kind = Preparation.BRANCHES
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(course.seed, "branches"))
        whole = extended(
            model,
            [kind],
            n_classes=len(course.workbench.data.classes),
            input_shape=course.workbench.input_shape,
            stated=config.features,
        )
    whole.is_attached = True
    objective = PrepareBranchesConfig(branches=len(whole.points), joint=True)
    train(
        Course(whole, objective, course.training, course.seed),
        course.workbench,
        on_epoch=course.on_epoch,
        files=course.files,
    )
    part = whole.parts[kind.value].cpu()
    path = course.files.folder / f"{kind}.safetensors"
    save_weights(part, path, {"kind": kind.value})
    return PreparedPart(kind=kind, weights=str(path), sha256=part_digest(part, kind))


def train_with_classifier(
    model: nn.Module, course: TeacherCourse, student: ModelConfig, recipe: TrainingConfig
) -> None:
    """SH-KD's teacher: a student is trained first, and the teacher with its classifier, which is frozen.

    Raises:
        ConfigError: the classifiers of both are of different widths.
        TrialFailed: a training diverged.
    """
    n_classes = len(course.workbench.data.classes)
    own = classifier_of(model, n_classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(course.seed, "student"))
        network = build_model(student, n_classes=n_classes, in_channels=course.workbench.input_shape[0])
    given = classifier_of(network, n_classes)
    if type(own) is not type(given) or own.weight.shape != given.weight.shape:
        raise ConfigError(
            f"`prepared: student_classifier` gives the teacher the student's last layer, which takes "
            f"{given.weight.shape[1]} numbers where the teacher's takes {own.weight.shape[1]}; choose a "
            "student whose embedding is as wide"
        )
    _train_student(network, course, digest_of([student.plain(), recipe.plain(), course.seed]), recipe)
    own.load_state_dict(given.state_dict())
    (path,) = (name for name, part in model.named_modules() if part is own)
    train(
        Course(model, CeConfig(), course.training.with_overrides(freeze=(path,)), course.seed),
        course.workbench,
        on_epoch=lambda epoch, metrics: course.on_epoch(recipe.epochs + epoch, metrics),
        files=course.files,
    )
    model.requires_grad_(True)


def _train_student(network: nn.Module, course: TeacherCourse, spec: str, recipe: TrainingConfig) -> None:
    """The student whose classifier is taken; one that was trained already is loaded."""
    files = CheckpointFolder(course.files.folder / "student", spec_digest=spec)
    path = files.folder / f"{spec[:12]}.safetensors"
    if path.is_file():
        load_weights(network, path)
        return
    train(
        Course(network, CeConfig(), recipe, derive_seed(course.seed, "student")),
        course.workbench,
        on_epoch=course.on_epoch,
        files=files,
    )
    save_weights(network.cpu(), path, {})
    files.drop_state()
