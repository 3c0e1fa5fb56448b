"""The teacher: trained by the one loop or loaded from a checkpoint, then digested and evaluated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import Field
from torch import nn

from trainables.checkpoint_header import preprocessing_metadata
from trainables.config import (
    CeConfig,
    Config,
    DataConfig,
    Normalisation,
    TeacherSource,
    TrainingConfig,
    ViewsConfig,
    digest_of,
)
from trainables.config.data import SplitFacts
from trainables.data import TrainingData, load_training
from trainables.data.splits import split_facts
from trainables.models import build_model
from trainables.models.renormalised import normalisation_of
from trainables.models.weights import count_parameters, load_weights, save_weights
from trainables.seeds import derive_seed
from trainables.teacher.loading import load_teacher, teacher_fingerprint
from trainables.teacher.preprocessing import shown_as_trained
from trainables.training.checkpoints import CheckpointFolder
from trainables.training.loop import Course, train
from trainables.training.workbench import Workbench


class TeacherRequest(TeacherSource):
    """Which teacher, and on what."""

    data: DataConfig
    training: TrainingConfig
    views: ViewsConfig
    seed: int
    folder: str = Field(description="where its weights and its training state are kept")
    threads: int = Field(1, ge=1)


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


def make_teacher(request: TeacherRequest, on_epoch: Callable[[int, dict[str, float]], None]) -> TeacherFacts:
    """Train (going on from where an interrupted training stopped) or load the teacher, and keep its weights.

    Raises:
        CheckpointError: the checkpoint does not fit the model, or has other classes.
        ConfigError: nobody says how the images of a loaded teacher were normalised.
        TrialFailed: the training diverged.
    """
    torch.set_num_threads(request.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = load_training(request.data)
    workbench = Workbench(
        data, request.views, view_seed=derive_seed(request.seed, "teacher views"), device=device
    )
    model = _untrained(request, workbench)
    folder = Path(request.folder)
    # Where it is kept and on how many threads it is trained do not make it another teacher.
    spec = request.model_dump(mode="json", exclude={"folder", "threads"})
    files = CheckpointFolder(folder, spec_digest=digest_of(spec))
    if request.checkpoint is not None:
        load_weights(model, Path(request.checkpoint))
    if not request.is_loaded:
        train(
            Course(model, CeConfig(), request.training, request.seed),
            workbench,
            on_epoch=on_epoch,
            files=files,
        )
    teacher = shown_as_trained(model, request, data).to(device)
    figures = workbench.evaluate(teacher, data.selection, batch_size=request.training.eval_batch_size)
    path = folder / "teacher.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    own = normalisation_of(teacher)
    metadata = preprocessing_metadata(own or data.normalisation, data.classes)
    save_weights(model.cpu(), path, {"model": request.model.model_dump_json(), **metadata})
    files.drop_state()  # not before: whoever is killed in between goes on from the state
    return TeacherFacts(
        weights=str(path),
        fingerprint=teacher_fingerprint(request.model, teacher.cpu()),
        params=count_parameters(model),
        selection_accuracy=figures["accuracy"],
        split=split_facts(data),
        normalisation=own,
    )


def _untrained(request: TeacherRequest, workbench: Workbench) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(request.seed, "weights"))
        n_classes = len(workbench.data.classes)
        return build_model(request.model, n_classes=n_classes, in_channels=workbench.input_shape[0])


def checkpoint_facts(source: TeacherSource, checkpoint: str, data: TrainingData) -> TeacherFacts:
    """The facts of a teacher that only has to be loaded, but for its accuracy, which nobody measured.

    Raises:
        CheckpointError: the checkpoint cannot be read, does not fit the model, or has other classes.
        ConfigError: nobody says how its images were normalised.
    """
    model = shown_as_trained(load_teacher(source.model, checkpoint, data), source, data)
    return TeacherFacts(
        weights=checkpoint,
        fingerprint=teacher_fingerprint(source.model, model),
        params=count_parameters(model),
        selection_accuracy=None,
        split=split_facts(data),
        normalisation=normalisation_of(model),
    )
