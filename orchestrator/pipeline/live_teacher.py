"""What students ask of the teacher while they train: which objectives do, why, and what it costs."""

from __future__ import annotations

from orchestrator.config.asked_features import asking_objectives
from orchestrator.pipeline.cache_stage import cache_request
from orchestrator.pipeline.context import Run
from trainables.cache.format.disk_space import bytes_in_words, expected_bytes
from trainables.teacher.feature_shapes import feature_shapes, maps_not_kept
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
    request = cache_request(run, teacher)
    banks = {bank: request.views.bank(bank) for bank in request.banks}
    origin, shards = maps_not_kept(request, request.origin, banks)
    return expected_bytes(origin, shards, feature_shapes(request, run.live_features))
