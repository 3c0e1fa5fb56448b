"""The teacher's logits of the selection split's clean images: asked for once, and kept as a file.

No objective hears them: each epoch of a student is compared with them. The file is known by the teacher and
by the data, and holds a checksum, so that nobody is compared with another teacher, or with a damaged file.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import safetensors
import safetensors.torch
import torch
from pydantic import Field
from torch import Tensor, nn

from trainables.config import Config, DataConfig, KeptTeacher, SelectionAnswers, digest_of
from trainables.data import TrainingData, load_training
from trainables.errors import CacheError
from trainables.evaluation.chance import AgainstChance, against_chance
from trainables.evaluation.metrics import MAX_LOGITS, answers, evaluate, figures_of, logits_of
from trainables.foreign_files import foreign_file
from trainables.local_files import replace_file
from trainables.teacher.loading import load_teacher

NAME: Final = "selection_answers.safetensors"
_LOGITS: Final = "logits"

# N = samples of the selection split, C = classes


class AnswersRequest(Config):
    """Which teacher is asked, and where its answers are kept."""

    network: KeptTeacher
    data: DataConfig
    batch_size: int = Field(ge=1)
    threads: int = Field(1, ge=1)
    kept: SelectionAnswers


@dataclass(frozen=True)
class Judged:
    """How good a teacher is on the selection split, and its answers there."""

    accuracy: float
    chance: AgainstChance
    logits_NC: Tensor | None
    """fp32, on the CPU; none where they are too many to hold."""


def answers_in(folder: Path, *, teacher: str, data: str) -> SelectionAnswers:
    """Where a folder keeps the answers of a teacher, by its fingerprint, to the data of this digest.

    There is one file: another teacher's answers take its place.
    """
    return SelectionAnswers(path=str(folder / NAME), teacher=teacher, data=data)


def judged(teacher: nn.Module, data: TrainingData, *, batch_size: int, device: torch.device) -> Judged:
    """What a teacher on this device says of the selection split, and how good that is.

    Raises:
        TrialFailed: a logit is not finite.
    """
    split, mean, std = data.selection, data.mean, data.std
    if not are_held(data):
        figures = evaluate(teacher, split, mean=mean, std=std, batch_size=batch_size, device=device)
        classes_N = answers(teacher, split, mean=mean, std=std, batch_size=batch_size, device=device)
        return Judged(figures["accuracy"], against_chance(classes_N, split.labels), None)
    logits_NC = logits_of(teacher, split, mean=mean, std=std, batch_size=batch_size, device=device)
    figures = figures_of(logits_NC, split.labels)
    return Judged(figures["accuracy"], against_chance(logits_NC.argmax(dim=-1), split.labels), logits_NC)


def are_held(data: TrainingData) -> bool:
    """Whether there are few enough logits of the selection split to hold and keep them: a GiB at most."""
    return len(data.selection.labels) * len(data.classes) <= MAX_LOGITS


def keep_answers(kept: SelectionAnswers, logits_NC: Tensor | None, data: TrainingData) -> None:
    """Write the file whole, if there are answers to keep.

    Raises:
        OSError: it cannot be written; what was there is intact.
    """
    if logits_NC is None:
        return
    tensor = logits_NC.float().cpu().contiguous()
    metadata = {**_identity(kept), "samples": _samples(data), "sha256": _sha256(tensor)}
    replace_file(Path(kept.path), safetensors.torch.save({_LOGITS: tensor}, metadata=metadata))


def are_kept(kept: SelectionAnswers) -> bool:
    """Whether the file is there, whole, and of this teacher and these data."""
    try:
        return Path(kept.path).is_file() and len(_read(kept)[1]) > 0
    except CacheError:
        return False


def read_answers(kept: SelectionAnswers, data: TrainingData) -> Tensor:
    """The teacher's fp32 logits, NxC on the CPU, in the order of the selection split.

    Raises:
        CacheError: the file is missing, damaged, or of another teacher, other data or another split.
    """
    samples, logits_NC = _read(kept)
    shape = len(data.selection.labels), len(data.classes)
    if kept.data != data.digest or samples != _samples(data) or logits_NC.shape != shape:
        raise _unusable(kept, "it is of another selection split than these data have")
    return logits_NC


def find_answers(request: AnswersRequest) -> None:
    """Ask a finished teacher and keep what it says, where the run that made it did not.

    Raises:
        CacheError: there are too many answers to keep.
        CheckpointError: the teacher's weights cannot be read or do not fit.
        OSError: the file cannot be written.
    """
    torch.set_num_threads(request.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = load_training(request.data)
    if not are_held(data):
        raise CacheError(
            f"its logits of {len(data.selection.labels):,} selection images and {len(data.classes):,} "
            "classes take more than 1 GiB; a smaller data.selection_fraction makes them fewer"
        )
    teacher = load_teacher(request.network, data).to(device)
    found = judged(teacher, data, batch_size=request.batch_size, device=device)
    keep_answers(request.kept, found.logits_NC, data)


def _read(kept: SelectionAnswers) -> tuple[str, Tensor]:
    """The digest of the samples, and the logits, of a file that is whole and of this teacher and data."""
    with (
        foreign_file(lambda why: _unusable(kept, why)),
        safetensors.safe_open(kept.path, framework="pt") as file,
    ):
        metadata = file.metadata() or {}
        logits_NC: Tensor = file.get_tensor(_LOGITS)
    if {name: metadata.get(name) for name in _identity(kept)} != _identity(kept):
        raise _unusable(kept, "it is of another teacher, or of other data")
    if metadata.get("sha256") != _sha256(logits_NC):
        raise _unusable(kept, "its checksum is another one than when it was written")
    return metadata.get("samples", ""), logits_NC


def _unusable(kept: SelectionAnswers, why: str) -> CacheError:
    return CacheError(
        f"the teacher's answers to the selection split, {kept.path}, cannot be used: {why}; remove the file "
        "and run again: they are found anew"
    )


def _identity(kept: SelectionAnswers) -> dict[str, str]:
    return {"teacher": kept.teacher, "data": kept.data}


def _samples(data: TrainingData) -> str:
    return digest_of([data.selection.ids.tolist(), data.selection.labels.tolist()])


def _sha256(logits_NC: Tensor) -> str:
    return hashlib.sha256(logits_NC.numpy().data).hexdigest()
