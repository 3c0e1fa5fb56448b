"""Which trials can be trained in one pack: what they have alike, and what keeps one alone."""

from __future__ import annotations

from typing import Any, Final

from trainables.config.base import digest_of
from trainables.config.metrics import RankBy
from trainables.config.objective_base import Need, ObjectiveBase
from trainables.config.training import TrainingConfig
from trainables.slots.messages import TrainJob

_SERVED: Final = frozenset({Need.ALL_CLASSES, Need.UNSHIFTED})
"""What a pack serves beside logits and labels."""
_ALIKE: Final = (
    "batch_size",
    "eval_batch_size",
    "optimizer",
    "nesterov",
    "label_smoothing",
    "sampling",
    "precision",
)
"""Of the recipe; all other numbers are each student's own."""


def keeps_alone(objective: ObjectiveBase) -> str | None:
    """Why students with this objective are trained alone; none where a pack can train them."""
    reasons = {
        "it trains several networks": objective.with_peers,
        "it has a state of its own": objective.keeps_state,
        "it attacks images": objective.attack is not None,
        "it looks at features": bool(objective.student_features or objective.teacher_features),
        "it mixes the images of a batch": objective.pair_mixing is not None,
        "it sees all views as one batch": objective.one_pass,
        "it looks at a feature map": Need.DENSE_LOGITS in objective.needed,
        f"it needs {', '.join(sorted(objective.needed - _SERVED))}": not objective.needed <= _SERVED,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def pack_key(job: TrainJob) -> str | None:
    """What jobs have alike that may share a pack; none for one that is trained alone.

    They have the same workbench, student and objective (but for its numbers), and of the recipe what
    `_ALIKE` names.
    """
    trial, workbench = job.trial, job.workbench
    if job.fake_quantised is not None or keeps_alone(trial.objective) or _recipe_keeps_alone(trial.training):
        return None
    if trial.rank_by is not RankBy.ACCURACY or workbench.online is not None:
        return None
    if workbench.data.unlabelled is not None:
        return None
    recipe: dict[str, Any] = {name: getattr(trial.training, name) for name in _ALIKE}
    recipe |= {"clips": trial.training.clip_norm is not None, "averages": bool(trial.training.ema)}
    objective = {name: value for name, value in dict(trial.objective).items() if not isinstance(value, float)}
    return digest_of([workbench.digest(), trial.student.plain(), objective, recipe])[:16]


def _recipe_keeps_alone(training: TrainingConfig) -> bool:
    return bool(training.freeze or training.lr_groups or training.compile)
