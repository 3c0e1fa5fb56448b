"""What students ask of the teacher while they train: which objectives do, why, and what it costs."""

from __future__ import annotations

import math

from orchestrator.config.asked_features import asking_objectives
from orchestrator.pipeline.cache_stage import cache_request
from orchestrator.pipeline.context import Run
from trainables.cache.format.disk_space import bytes_in_words
from trainables.config.cache import FeaturePrecision
from trainables.teacher.feature_shapes import feature_shapes
from trainables.training.train_teacher import TeacherFacts


def tell_live_teacher(run: Run, teacher: TeacherFacts) -> None:
    """Say which objectives have the teacher run beside the student; nothing where a cache has all of it.

    Raises:
        CacheError: the teacher has no such feature.
    """
    config = run.experiment.cache
    if config.online or not run.live_features:
        return
    names, size = ", ".join(run.live_features), bytes_in_words(_kept_bytes(run, teacher))
    objectives = ", ".join(asking_objectives(run.space, run.live_features))
    run.console.info(
        f"{objectives}: the teacher runs beside the student, a pass of it in each step "
        f"(train/teacher_seconds of an epoch says how long), since no cache keeps its {names}; "
        f"`cache: {{features: [{names}]}}` would keep them once, in {size}"
    )


def _kept_bytes(run: Run, teacher: TeacherFacts) -> int:
    """What the maps would take of all views of the banks that they are asked of."""
    shapes = feature_shapes(cache_request(run, teacher), run.live_features)
    each = 4 if run.experiment.cache.feature_precision is FeaturePrecision.FP32 else 2
    views = {bank: run.experiment.views.bank(bank).views for bank in run.teacher_features}
    numbers = sum(
        views[bank] * math.prod(shapes[name])
        for bank, asked in run.teacher_features.items()
        for name in asked
        if name in run.live_features
    )
    return teacher.split.n_rows * numbers * each
