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
from trainables.data import TrainingData, load_training
from trainables.data.splits import split_facts
from trainables.evaluation.chance import AgainstChance, against_chance
from trainables.models import build_model
from trainables.models.foreign.aligned import classes_of
from trainables.models.renormalised import normalisation_of
from trainables.models.weights import count_parameters, load_weights, save_weights
from trainables.seeds import derive_seed
from trainables.teacher.class_order import known_classes
from trainables.teacher.loading import load_network, teacher_fingerprint
from trainables.teacher.preprocessing import n_outputs, shown_as_trained
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

    def kept(self, model: ModelConfig | None) -> KeptNetwork | None:
        """What is loaded to ask this teacher, whose network is the model; none for imported logits."""
        if model is None or self.weights is None:
            return None
        return KeptNetwork(
            model=model, weights=self.weights, normalisation=self.normalisation, classes=self.classes
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
    model = _untrained(request, workbench)
    # Where it is kept and on how many threads it is trained do not make it another teacher.
    spec = request.model_dump(mode="json", exclude={"folder", "threads"})
    files = CheckpointFolder(Path(request.folder), spec_digest=digest_of(spec))
    if request.checkpoint is not None:
        load_weights(model, Path(request.checkpoint))
    if not request.is_loaded:
        train(
            Course(model, CeConfig(), request.training, request.seed),
            workbench,
            on_epoch=on_epoch,
            files=files,
        )
    facts = _kept(model, request, workbench)
    files.drop_state()  # not before: whoever is killed in between goes on from the state
    return facts


def _kept(model: nn.Module, request: TeacherRequest, workbench: Workbench) -> TeacherFacts:
    """Evaluate a finished network as the teacher that it is, and keep its weights."""
    data, batch_size = workbench.data, request.training.eval_batch_size
    teacher = shown_as_trained(model, request, data).to(workbench.device)
    figures = workbench.evaluate(teacher, data.selection, batch_size=batch_size)
    answers_N = workbench.classes(teacher, data.selection, batch_size=batch_size)
    path = Path(request.folder) / "teacher.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    own = normalisation_of(teacher)
    classes = known_classes(request, model) or data.classes
    metadata = preprocessing_metadata(own or data.normalisation, classes)
    save_weights(model.cpu(), path, {"model": request.model.model_dump_json(), **metadata})
    return TeacherFacts(
        weights=str(path),
        fingerprint=teacher_fingerprint(request.model, teacher.cpu()),
        params=count_parameters(model),
        selection_accuracy=figures["accuracy"],
        split=split_facts(data),
        normalisation=own,
        classes=classes_of(teacher),
        chance=against_chance(answers_N, data.selection.labels),
    )


def _untrained(request: TeacherRequest, workbench: Workbench) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(request.seed, "weights"))
        outputs = n_outputs(request, workbench.data)
        return build_model(request.model, n_classes=outputs, in_channels=workbench.input_shape[0])


def checkpoint_facts(source: TeacherSource, checkpoint: str, data: TrainingData) -> TeacherFacts:
    """The facts of a teacher that only has to be loaded, but for its accuracy, which nobody measured.

    Raises:
        CheckpointError: the checkpoint cannot be read, does not fit the model, or lacks classes.
        ConfigError: nobody says how its images were normalised.
    """
    loaded = load_network(source.model, checkpoint, data, n_outputs=n_outputs(source, data))
    model = shown_as_trained(loaded, source, data)
    return TeacherFacts(
        weights=checkpoint,
        fingerprint=teacher_fingerprint(source.model, model),
        params=count_parameters(model),
        selection_accuracy=None,
        split=split_facts(data),
        normalisation=normalisation_of(model),
        classes=classes_of(model),
    )
