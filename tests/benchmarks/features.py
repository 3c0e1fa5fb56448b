"""What feature maps from the cache save a training step, over the teacher beside the student."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from tests.benchmarks.figures import Bound, Figure
from tests.benchmarks.steps import (
    BATCH,
    CLASSES,
    CPU,
    SIDE,
    STEPS_KEPT,
    STUDENT,
    TEACHER,
    VIEW_SEED,
    VIEWS,
    cache_of,
    network,
    random_data,
    recipe,
    step_times_s,
)
from tests.benchmarks.surroundings import surroundings
from trainables.config import OBJECTIVE_CONFIGS, Precision
from trainables.teacher.live import LiveTeacher
from trainables.teacher.online import OnlineTeacher
from trainables.tensors import memory_format
from trainables.training.course import Course
from trainables.training.workbench import Workbench

CACHED_OVER_ONLINE: Final = Bound(2.5, at_least=True)
OBJECTIVES: Final = ("fitnet", "tat")


def features_cached_over_online(rounds: int = 6) -> Figure:
    """Steps a second from cached maps over those with the teacher beside: the lower of FitNet's and TaT's."""
    torch.set_num_threads(1)
    data, teacher = random_data(), network(TEACHER)
    configs = {name: OBJECTIVE_CONFIGS[name]() for name in OBJECTIVES}
    maps = tuple(feature for config in configs.values() for feature in config.teacher_features)
    live = LiveTeacher(teacher, data, seed=VIEW_SEED, batch_size=BATCH, device=CPU)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        cache = cache_of(
            Path(folder), data, teacher, VIEWS, features={"weak": maps}, precision=Precision.FP32
        )
        benches = {
            where: Workbench(data, VIEWS, view_seed=VIEW_SEED, device=CPU, cache=source)
            for where, source in (("cached", cache), ("online", OnlineTeacher(live, VIEWS)))
        }
        steps_s = {name: _medians_s(name, benches, rounds) for name in OBJECTIVES}
    ratios = {name: found["online"] / found["cached"] for name, found in steps_s.items()}
    told = "; ".join(
        f"{name} {ratios[name]:.2f} ({1000 * found['cached']:.1f} ms and {1000 * found['online']:.1f} ms)"
        for name, found in steps_s.items()
    )
    how = (
        f"median of {rounds * STEPS_KEPT} training steps with the teacher's map from a cache in "
        f"fp16 and with the teacher beside the student, taken in turns of {STEPS_KEPT} in one process with 1 "
        f"thread: {told}; "
        f"the figure is the lower; student {STUDENT.name} of width {STUDENT.width}, teacher {TEACHER.name} "
        f"of width {TEACHER.width}, whose pass takes {_passes_over(teacher, network(STUDENT)):.1f} times as "
        f"long; fp32, batch {BATCH} of {SIDE}x{SIDE} grey images, {CLASSES} classes; {surroundings('torch')}"
    )
    return Figure(min(ratios.values()), "x", how, CACHED_OVER_ONLINE)


def _medians_s(name: str, benches: Mapping[str, Workbench], rounds: int) -> dict[str, float]:
    """Median seconds of a step by where the maps come from; turns change places each round."""
    models = {where: network(STUDENT) for where in benches}
    times_s: dict[str, list[float]] = {where: [] for where in benches}
    for number in range(rounds + 1):
        for where in list(benches) if number % 2 else list(benches)[::-1]:
            course = Course(models[where], OBJECTIVE_CONFIGS[name](), recipe(), number)
            taken_s = step_times_s(course, benches[where])
            if number > 0:  # the first round also renders the views and loads the teacher's maps
                times_s[where] += taken_s
    return {where: statistics.median(taken_s) for where, taken_s in times_s.items()}


def _passes_over(teacher: nn.Module, student: nn.Module, rounds: int = 9) -> float:
    """Median time of a pass of the teacher over that of the student, on a batch, in inference mode."""
    times_s: dict[str, list[float]] = {"teacher": [], "student": []}
    for _ in range(rounds):
        for name, model in (("teacher", teacher), ("student", student)):
            times_s[name].append(_pass_s(model.eval()))
    return statistics.median(times_s["teacher"]) / statistics.median(times_s["student"])


def _pass_s(model: nn.Module) -> float:
    layout = memory_format(model)
    images: Tensor = torch.rand(BATCH, 1, SIDE, SIDE).contiguous(memory_format=layout)
    model = model.to(memory_format=layout)  # type: ignore[call-overload]
    with torch.inference_mode():
        model(images)
        began = time.perf_counter()
        model(images)
        return time.perf_counter() - began
