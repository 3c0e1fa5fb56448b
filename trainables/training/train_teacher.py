"""The teacher: trained by the one loop or loaded from a checkpoint, then digested and evaluated."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import torch
from pydantic import Field
from torch import nn

from trainables.checkpoint_header import preprocessing_metadata
from trainables.config import (
    ClassRows,
    Config,
    DataConfig,
    KeptNetwork,
    ModelConfig,
    Normalisation,
    TeacherSource,
    TrainingConfig,
    ViewsConfig,
    digest_of,
)
from trainables.config.data import SplitFacts
from trainables.config.representation.preparation import PreparedPart, PreparedTraining
from trainables.config.teacher import ONNX
from trainables.data import TrainingData, load_training
from trainables.data.splits import split_facts
from trainables.evaluation.chance import AgainstChance
from trainables.local_files import replacing
from trainables.models import build_model
from trainables.models.foreign.aligned import classes_of
from trainables.models.foreign.onnx_network import adapted_by, onnx_networks
from trainables.models.renormalised import normalisation_of
from trainables.models.weights import count_parameters, load_weights, save_weights
from trainables.seeds import derive_seed
from trainables.teacher.class_order import known_classes
from trainables.teacher.loading import load_network, load_onnx, teacher_fingerprint
from trainables.teacher.preprocessing import n_outputs, shown_as_trained
from trainables.teacher.selection_answers import answers_in, judged, keep_answers
from trainables.training.progress.checkpoints import CheckpointFolder
from trainables.training.teacher_courses import (
    TeacherCourse,
    train_plainly,
    train_with_branches,
    train_with_classifier,
)
from trainables.training.workbench import Workbench

NO_PART: Final = ("folder", "threads", "keeps_answers")
"""What of a request does not make it another teacher: what is kept of it where, on how many threads."""


class TeacherRequest(TeacherSource):
    """Which teacher, and on what."""

    data: DataConfig
    training: TrainingConfig
    views: ViewsConfig
    seed: int
    folder: str = Field(description="where its weights and its training state are kept")
    threads: int = Field(1, ge=1)
    prepared: PreparedTraining | None = Field(
        None,
        description="how it is trained, where that is not by the labels alone",
        exclude_if=lambda prepared: prepared is None,
    )
    student: ModelConfig | None = Field(
        None, description="whose classifier it gets", exclude_if=lambda student: student is None
    )
    student_training: TrainingConfig | None = Field(
        None, description="how that student is trained", exclude_if=lambda training: training is None
    )
    keeps_answers: bool = Field(
        True, description="it keeps its answers to the selection split, with which students are compared"
    )
    code: str | None = Field(
        None,
        description="of the factories, where their code is not the first that the experiment had",
        exclude_if=lambda code: code is None,
    )


class TeacherFacts(Config):
    """The finished teacher."""

    weights: str | None = Field(description="safetensors file; none when only its logits are known")
    fingerprint: str = Field(description="sha256 of architecture and weights, or of imported logits")
    params: int | None = Field(description="none when only its logits are known")
    selection_accuracy: float | None = Field(description="none when its logits there are not known")
    split: SplitFacts = Field(description="the training split that it was made on")
    normalisation: Normalisation | None = Field(
        None,
        description="of its images, where it is another than the data's",
        exclude_if=lambda other: other is None,
    )
    classes: ClassRows | None = Field(
        None,
        description="where the data's are among its own, if these are not the same",
        exclude_if=lambda rows: rows is None,
    )
    chance: AgainstChance | None = Field(
        None,
        description="its accuracy beside that of chance; none in a ledger of an earlier version, and where "
        "nobody measured it",
        exclude_if=lambda found: found is None,
    )

    adapted: tuple[str, ...] = Field(
        (), description="what was done to its images or answers", exclude_if=lambda done: not done
    )
    prepared: tuple[PreparedPart, ...] = Field(
        (), description="what it was prepared with", exclude_if=lambda parts: not parts
    )
    members: tuple[TeacherFacts, ...] = Field(
        (), description="of several teachers, each", exclude_if=lambda members: not members
    )

    @property
    def hashes(self) -> dict[str, str]:
        """What it is known by, and what it was prepared with: by name, `teacher` and `teacher.ss_head`."""
        parts = {f"teacher.{part.kind}": part.sha256 for part in self.prepared}
        return {"teacher": self.fingerprint, **parts}

    def kept(self, source: TeacherSource) -> KeptNetwork | None:
        """What is loaded to ask this teacher, of which the file says so much; none before it is made."""
        if self.weights is None:
            return None
        return KeptNetwork(
            model=source.model,
            weights=self.weights,
            output=source.output,
            normalisation=self.normalisation,
            classes=self.classes,
            prepared=self.prepared,
        )


def make_teacher(request: TeacherRequest, on_epoch: Callable[[int, dict[str, float]], None]) -> TeacherFacts:
    """Train (going on from where an interrupted training stopped) or load the teacher, and keep its weights.

    Raises:
        CheckpointError: the checkpoint does not fit the model, or lacks classes of the data's.
        ConfigError: nobody says how the images of a loaded teacher were normalised.
        TrialFailed: the training diverged.
    """
    torch.set_num_threads(request.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = load_training(request.data)
    workbench = Workbench(
        data, request.views, view_seed=derive_seed(request.seed, "teacher views"), device=device
    )
    model = _network(request, workbench)
    spec = request.model_dump(mode="json", exclude=set(NO_PART))
    files = CheckpointFolder(Path(request.folder), spec_digest=digest_of(spec))
    parts: tuple[PreparedPart, ...] = ()
    if not request.is_loaded:
        parts = _trained(
            model, request, TeacherCourse(request.training, request.seed, workbench, files, on_epoch)
        )
    facts = _kept(model, request, workbench).with_overrides(prepared=parts)
    files.drop_state()  # not before: whoever is killed in between goes on from the state
    return facts


def _trained(model: nn.Module, request: TeacherRequest, course: TeacherCourse) -> tuple[PreparedPart, ...]:
    """Train it as it is asked for; parts beside it that were trained with it."""
    if request.prepared is PreparedTraining.JOINT_BRANCHES and request.model is not None:
        return (train_with_branches(model, course, request.model),)
    if request.student is not None and request.student_training is not None:
        train_with_classifier(model, course, request.student, request.student_training)
    else:
        train_plainly(model, course)
    return ()


def _kept(model: nn.Module, request: TeacherRequest, workbench: Workbench) -> TeacherFacts:
    """Evaluate a finished network as the teacher that it is, and keep its weights."""
    data, batch_size, device = workbench.data, request.training.eval_batch_size, workbench.device
    teacher = shown_as_trained(model, request, data).to(device)
    found = judged(teacher, data, batch_size=batch_size, device=device)
    own = normalisation_of(teacher)
    classes = known_classes(request, model) or data.classes
    metadata = preprocessing_metadata(own or data.normalisation, classes)
    path = _written(model, request, metadata)
    fingerprint = teacher_fingerprint(request.model, teacher.cpu())
    if request.keeps_answers:
        kept = answers_in(Path(request.folder), teacher=fingerprint, data=data.digest)
        keep_answers(kept, found.logits_NC, data)
    return TeacherFacts(
        weights=str(path),
        fingerprint=fingerprint,
        params=count_parameters(model),
        selection_accuracy=found.accuracy,
        split=split_facts(data),
        normalisation=own,
        classes=classes_of(teacher),
        chance=found.chance,
        adapted=adapted_by(teacher),
    )


def _written(model: nn.Module, request: TeacherRequest, metadata: Mapping[str, str]) -> Path:
    """The file of a network's weights in the teacher's folder, which outlives the file that it came from."""
    folder = Path(request.folder)
    if request.model is not None:
        path = folder / "teacher.safetensors"
        save_weights(model.cpu(), path, {"model": request.model.model_dump_json(), **metadata})
        return path
    (network,) = onnx_networks(model)
    first, *others = network.graph.files
    targets = {first: folder / f"teacher{ONNX}"}
    targets |= {other: folder / other.relative_to(first.parent) for other in others}
    for source, target in targets.items():
        if not (target.exists() and target.samefile(source)):
            with replacing(target) as beside:
                shutil.copyfile(source, beside)
    return targets[first]


def _network(request: TeacherRequest, workbench: Workbench) -> nn.Module:
    """With its weights, where they are in a file."""
    data = workbench.data
    if request.model is None:
        outputs = n_outputs(request, data)
        return load_onnx(str(request.checkpoint), data, n_outputs=outputs, output=request.output)
    model = _untrained(request.model, request, workbench)
    if request.checkpoint is not None:
        load_weights(model, Path(request.checkpoint))
    return model


def _untrained(config: ModelConfig, request: TeacherRequest, workbench: Workbench) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(request.seed, "weights"))
        outputs = n_outputs(request, workbench.data)
        return build_model(config, n_classes=outputs, in_channels=workbench.input_shape[0])


def checkpoint_facts(source: TeacherSource, checkpoint: str, data: TrainingData) -> TeacherFacts:
    """The facts of a teacher that only has to be loaded, but for its accuracy, which nobody measured.

    Raises:
        CheckpointError: the checkpoint cannot be read, does not fit the model, or lacks classes.
        ConfigError: nobody says how its images were normalised.
    """
    outputs = n_outputs(source, data)
    loaded: nn.Module
    if source.model is None:
        loaded = load_onnx(checkpoint, data, n_outputs=outputs, output=source.output)
    else:
        loaded = load_network(source.model, checkpoint, data, n_outputs=outputs)
    model = shown_as_trained(loaded, source, data)
    return TeacherFacts(
        weights=checkpoint,
        fingerprint=teacher_fingerprint(source.model, model),
        params=count_parameters(model),
        selection_accuracy=None,
        split=split_facts(data),
        normalisation=normalisation_of(model),
        classes=classes_of(model),
        adapted=adapted_by(model),
    )
