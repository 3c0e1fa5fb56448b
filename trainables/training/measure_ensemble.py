"""Several finished teachers, looked at as the one that they are together."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import Field

from trainables.config import Config, DataConfig, KeptEnsemble
from trainables.data import load_training
from trainables.data.splits import split_facts
from trainables.models.weights import count_parameters
from trainables.teacher.loading import kept_fingerprint, load_teacher
from trainables.teacher.selection_answers import answers_in, judged, keep_answers
from trainables.training.train_teacher import TeacherFacts


class EnsembleRequest(Config):
    """Which teachers, on what."""

    network: KeptEnsemble
    data: DataConfig
    batch_size: int = Field(ge=1)
    threads: int = Field(1, ge=1)
    folder: str = Field(description="where what they say of the selection split is kept")


def measure_ensemble(request: EnsembleRequest) -> TeacherFacts:
    """How good they are together on the selection split; what is known of each is for the caller to add.

    Raises:
        CheckpointError: the weights of one cannot be read.
        OSError: their answers cannot be written.
    """
    torch.set_num_threads(request.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = load_training(request.data)
    teacher = load_teacher(request.network, data).to(device)
    found = judged(teacher, data, batch_size=request.batch_size, device=device)
    fingerprint = kept_fingerprint(request.network, teacher.cpu())
    kept = answers_in(Path(request.folder), teacher=fingerprint, data=data.digest)
    keep_answers(kept, found.logits_NC, data)
    return TeacherFacts(
        weights=None,
        fingerprint=fingerprint,
        params=count_parameters(teacher),
        selection_accuracy=found.accuracy,
        split=split_facts(data),
        chance=found.chance,
    )
