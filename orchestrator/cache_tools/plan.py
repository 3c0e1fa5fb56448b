"""What a cache will cost, before anything runs: rows, bytes, time, and what each precision loses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from orchestrator.cache_tools.owner import require_teacher_banks
from orchestrator.cache_tools.parts import PartCost, kept_parts, show_parts, unkept_parts
from orchestrator.pipeline.cache_stage import cache_request, unmade_teacher
from orchestrator.pipeline.context import Run
from orchestrator.pipeline.teacher_stage import known_teacher
from orchestrator.terminal.console import Console
from orchestrator.terminal.formatting import duration
from trainables.cache.format.disk_space import bytes_in_words, expected_bytes, require_disk_space
from trainables.cache.format.planning import Plan, agreed_origin, answers_of, plan_shards
from trainables.cache.format.storage import Place, open_place
from trainables.cache.tools.fidelity import FidelityRow, fidelity
from trainables.data import TrainingData, load_training
from trainables.teacher.cache_request import CacheRequest
from trainables.teacher.feature_shapes import feature_shapes
from trainables.teacher.live import LiveTeacher
from trainables.teacher.loading import teacher_of
from trainables.teacher.speed_sample import TeacherSample, sample_teacher


@dataclass(frozen=True)
class BuildEstimate:
    """What is still to do."""

    plan: Plan
    bytes: int
    sample: TeacherSample | None
    parts: list[PartCost]
    not_kept: list[PartCost]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def images_per_s(self) -> float | None:
        """How fast one teacher answers here; none where it was not timed."""
        return self.sample.images_per_s if self.sample else None


def plan_cache(run: Run, console: Console) -> dict[str, Any]:
    """Tell what the cache of an experiment needs, and refuse one that has no room.

    Raises:
        ConfigError: the experiment has no cache.
        CacheError: the disk cannot hold it (after the table was shown), or the folder is another cache's.
    """
    require_teacher_banks(run)
    data = load_training(run.experiment.data)
    teacher = known_teacher(run)
    request = cache_request(run, teacher or unmade_teacher(data))
    place = open_place(request.uri if teacher or request.cache.uri else request.folder)
    sample = _sampled(request, data, console) if request.teacher is not None and teacher is not None else None
    estimate = _estimate(request, place, sample, is_made=teacher is not None)
    console.info(f"cache at {request.uri if teacher else place.uri}")
    if request.facts.unlabelled is not None and request.data.unlabelled is not None:
        console.info(request.facts.unlabelled.in_words(request.data.unlabelled))
    _show_parts(request, estimate, console)
    _show_time(estimate, console, is_made=teacher is not None)
    losses = _show_losses(request, estimate, console)
    require_disk_space(place, estimate.plan, estimate.shapes)
    unlabelled = request.facts.unlabelled
    return {**_result(place, estimate, losses), **({"unlabelled": unlabelled.plain()} if unlabelled else {})}


def _estimate(
    request: CacheRequest, place: Place, sample: TeacherSample | None, *, is_made: bool
) -> BuildEstimate:
    banks = {name: request.views.bank(name) for name in request.banks}
    origin = agreed_origin(place, request.origin) if is_made else request.origin
    plan = plan_shards(place, origin, banks)
    asked = {name for names in (*origin.features.values(), *request.asked.values()) for name in names}
    shapes = feature_shapes(request, asked)
    return BuildEstimate(
        plan,
        expected_bytes(origin, plan.missing, shapes),
        sample,
        parts=kept_parts(plan, shapes),
        not_kept=unkept_parts(request, plan, shapes),
        shapes=shapes,
    )


def _sampled(request: CacheRequest, data: TrainingData, console: Console) -> TeacherSample:
    console.info("timing a few batches of the teacher")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(request.threads_per_actor)
    live = LiveTeacher(
        teacher_of(request, data),
        data,
        seed=request.view_seed,
        batch_size=request.cache.batch_size,
        device=device,
    )
    recipe = request.views.bank(request.banks[0]).recipe
    return sample_teacher(live, recipe, n_rows=len(data.train.ids), batch_size=request.cache.batch_size)


def _show_parts(request: CacheRequest, estimate: BuildEstimate, console: Console) -> None:
    plan, speed = estimate.plan, estimate.images_per_s
    show_parts("banks", estimate.parts, plan, console, images_per_s=speed)
    there = sum(record.bytes for record in plan.committed.values())
    console.info(f"{bytes_in_words(estimate.bytes)} to write, {bytes_in_words(there)} there")
    if estimate.not_kept:
        show_parts("not kept", estimate.not_kept, plan, console, images_per_s=speed)
        names = ", ".join(dict.fromkeys(part.part for part in estimate.not_kept))
        size = bytes_in_words(sum(part.bytes_to_write for part in estimate.not_kept))
        console.info(
            f"{names}: whole maps that an objective asks for; the teacher runs beside the student for them. "
            f"`cache: {{features: [{names}]}}` would keep them, in {size} more"
        )


def _show_time(estimate: BuildEstimate, console: Console, *, is_made: bool) -> None:
    todo = answers_of(estimate.plan.missing)
    if not todo:
        console.info("teacher: nothing is left to ask it, the cache is complete")
    elif estimate.sample is not None:
        speed = estimate.sample.images_per_s
        device = "this machine's GPU" if torch.cuda.is_available() else "this machine's CPU"
        console.info(
            f"teacher: {speed:,.0f} images/s on {device}, so {duration(todo / speed)} for {todo:,} rows by "
            "one teacher; a cluster divides that by its devices"
        )
    elif not is_made:
        console.info(
            f"teacher: not made yet, so its time for {todo:,} rows is not known; plan again once "
            "stillhouse run has made it"
        )
    else:
        console.info("teacher: its logits were imported, so it takes no time")


def _show_losses(request: CacheRequest, estimate: BuildEstimate, console: Console) -> list[FidelityRow]:
    if estimate.sample is None:
        console.info("what each precision loses is not known without the teacher")
        return []
    losses = fidelity(estimate.sample.logits_BC.numpy(), top_k=request.cache.top_k)
    by_precision: dict[str, list[FidelityRow]] = {}
    for row in losses:
        by_precision.setdefault(row.precision.value, []).append(row)
    own = request.cache.precision.value
    rows = [
        (
            f"{name}{' (asked for)' if name == own else ''}",
            str(found[0].row_bytes),
            *(f"{row.mean_kl:.1e}" for row in found),
        )
        for name, found in by_precision.items()
    ]
    temperatures = [f"KL at T = {row.temperature:g}" for row in next(iter(by_precision.values()))]
    console.table(
        f"what each precision loses, nats, mean over {len(estimate.sample.logits_BC):,} samples",
        ("precision", "bytes a row", *temperatures),
        rows,
    )
    return losses


def _result(place: Place, estimate: BuildEstimate, losses: list[FidelityRow]) -> dict[str, Any]:
    todo = answers_of(estimate.plan.missing)
    speed = estimate.images_per_s
    return {
        "uri": place.uri,
        "rows": sum(estimate.plan.origin.n_rows * bank.views for bank in estimate.plan.banks.values()),
        "rows_to_compute": todo,
        "bytes_to_write": estimate.bytes,
        "free_bytes": place.free_bytes(),
        "teacher_images_per_s": speed,
        "teacher_s": todo / speed if speed else None,
        "parts": [part.plain(speed) for part in estimate.parts],
        "not_kept": [part.plain(speed) for part in estimate.not_kept],
        "precisions": [row.plain() for row in losses],
    }
