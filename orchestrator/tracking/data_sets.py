"""What stages found out about images, answers and the teacher, as MLflow is told of it."""

from __future__ import annotations

from typing import Any, Final

from orchestrator.records.costs import TEACHER
from orchestrator.records.events import StageEvent
from orchestrator.tracking.changes import DataSet
from orchestrator.tracking.names import rounded

TRAINING: Final = "training and selection"
_ANSWERS: Final = "the teacher's answers"
_DIGEST_CHARACTERS: Final = 36
"""MLflow holds no more; a sha256 in hexadecimal has 64."""


def data_sets(event: StageEvent) -> list[DataSet] | None:
    """What a finished stage found out about images, or about a cache; none where it is about neither."""
    found = event.found
    if isinstance(found.get("split"), dict):
        return [_images(found["split"])]
    if isinstance(found.get("identity"), dict) and "rows" in found:
        return [_answers(found)]
    return None


def teacher_figures(event: StageEvent) -> dict[str, float]:
    """What the teacher that a stage trained or loaded can do; empty of other stages."""
    if event.stage.split()[0] != TEACHER:
        return {}
    known = {"teacher_acc": "selection_accuracy", "teacher_params": "params"}
    found = {short: event.found.get(name) for short, name in known.items()}
    return {short: rounded(value) for short, value in found.items() if isinstance(value, int | float)}


def _images(split: dict[str, Any]) -> DataSet:
    profile: dict[str, Any] = {
        name: split[name] for name in ("n_train", "input_shape", "left_out") if name in split
    }
    return DataSet(
        name="images",
        digest=str(split["data_digest"])[:_DIGEST_CHARACTERS],
        source=f"split {split.get('ids_digest', '')}",
        context=TRAINING,
        profile={**profile, "classes": len(split.get("classes", ()))},
    )


def _answers(cache: dict[str, Any]) -> DataSet:
    identity = cache["identity"]
    return DataSet(
        name="answers",
        digest=str(cache.get("manifest") or identity.get("teacher", ""))[:_DIGEST_CHARACTERS],
        source=str(cache.get("uri", "")),
        context=_ANSWERS,
        profile={
            **{name: cache[name] for name in ("rows", "bytes") if name in cache},
            **{name: identity[name] for name in ("teacher", "dtype", "n_classes") if name in identity},
        },
    )
