"""Several finished teachers, looked at as the one that they are together."""

from __future__ import annotations

import torch
from pydantic import Field

from trainables.config import Config, DataConfig, KeptEnsemble, ViewsConfig
from trainables.data import load_training
from trainables.data.splits import split_facts
from trainables.evaluation.chance import against_chance
from trainables.models.weights import count_parameters
from trainables.teacher.loading import kept_fingerprint, load_teacher
from trainables.training.train_teacher import TeacherFacts
from trainables.training.workbench import Workbench


class EnsembleRequest(Config):
    """Which teachers, on what."""

    network: KeptEnsemble
    data: DataConfig
    batch_size: int = Field(ge=1)
    threads: int = Field(1, ge=1)


def measure_ensemble(request: EnsembleRequest) -> TeacherFacts:
    """How good they are together on the selection split; what is known of each is for the caller to add.

    Raises:
        CheckpointError: the weights of one cannot be read.
    """
    torch.set_num_threads(request.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = load_training(request.data)
    workbench = Workbench(data, ViewsConfig(), view_seed=0, device=device)
    teacher = load_teacher(request.network, data).to(device)
    figures = workbench.evaluate(teacher, data.selection, batch_size=request.batch_size)
    answers_N = workbench.classes(teacher, data.selection, batch_size=request.batch_size)
    return TeacherFacts(
        weights=None,
        fingerprint=kept_fingerprint(request.network, teacher.cpu()),
        params=count_parameters(teacher),
        selection_accuracy=figures["accuracy"],
        split=split_facts(data),
        chance=against_chance(answers_N, data.selection.labels),
    )
