"""What a finished teacher is prepared with: parts beside it that are trained by the one loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import Field

from trainables.config import Config, DataConfig, KeptNetwork, TrainingConfig, ViewsConfig, digest_of
from trainables.config.objective_base import ObjectiveBase, Preparation
from trainables.config.representation.preparation import (
    PrepareBranchesConfig,
    PreparedPart,
    PrepareHeadConfig,
)
from trainables.data import TrainingData, load_training
from trainables.models.features import Extended
from trainables.models.weights import save_weights
from trainables.seeds import derive_seed
from trainables.teacher.loading import load_teacher
from trainables.teacher.prepared import extended, part_digest
from trainables.training.course import Course
from trainables.training.loop import train
from trainables.training.progress.checkpoints import CheckpointFolder
from trainables.training.workbench import Workbench


class PreparationRequest(Config):
    """Which teacher is prepared, with what, and on what."""

    kind: Preparation
    network: KeptNetwork = Field(description="the finished teacher")
    fingerprint: str = Field(description="of the teacher")
    data: DataConfig
    training: TrainingConfig
    views: ViewsConfig
    seed: int
    folder: str = Field(description="where the weights and the training state are kept")
    threads: int = Field(1, ge=1)
    code: str | None = Field(
        None,
        description="of the factories, where their code is not the first that the experiment had",
        exclude_if=lambda code: code is None,
    )

    def key(self) -> str:
        """Fingerprint of all that the weights depend on: not of places, nor of threads."""
        plain = self.model_dump(mode="json", exclude={"network", "folder", "threads", "data"})
        stated = self.network.model.features if self.network.model else {}
        return digest_of([plain, stated])


def prepare_teacher(
    request: PreparationRequest,
    on_epoch: Callable[[int, dict[str, float]], None],
    *,
    heard: int | None = None,
) -> PreparedPart:
    """Train a part beside a teacher (going on from where it stopped), and keep its weights.

    The teacher is in evaluation mode, gets no gradient, and keeps every bit. `heard` is as for `train`.

    Raises:
        CacheError: the teacher has not the features that the part is given.
        CheckpointError: the teacher's weights cannot be read.
        TrialFailed: the training diverged.
    """
    torch.set_num_threads(request.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = load_training(request.data)
    workbench = Workbench(
        data, request.views, view_seed=derive_seed(request.seed, "preparation views"), device=device
    )
    model = _beside(request, data)
    training = request.training.with_overrides(freeze=("base",))
    spec = [request.key(), request.data.plain()]
    files = CheckpointFolder(Path(request.folder), spec_digest=digest_of(spec))
    train(
        Course(model, _objective(request.kind, model), training, request.seed, keeps_last=True),
        workbench,
        on_epoch=on_epoch,
        files=files,
        heard=heard,
    )
    part = model.parts[request.kind.value].cpu()
    path = Path(request.folder) / f"{request.kind}.safetensors"
    save_weights(part, path, {"teacher": request.fingerprint, "kind": request.kind.value})
    files.drop_state()  # not before: whoever is killed in between goes on from the state
    return PreparedPart(kind=request.kind, weights=str(path), sha256=part_digest(part, request.kind))


def _beside(request: PreparationRequest, data: TrainingData) -> Extended:
    teacher = load_teacher(request.network, data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(request.seed, "weights"))
        return extended(
            teacher,
            [request.kind],
            n_classes=len(data.classes),
            input_shape=data.train.image_shape,
            stated=request.network.model.features if request.network.model else {},
        )


def _objective(kind: Preparation, model: Extended) -> ObjectiveBase:
    if kind is Preparation.SS_HEAD:
        return PrepareHeadConfig()
    return PrepareBranchesConfig(branches=len(model.points))
