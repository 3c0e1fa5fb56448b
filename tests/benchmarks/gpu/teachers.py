"""What a teacher costs on a GPU: its pass over the data, its cached answers, and its answers in each step."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from tests.benchmarks.figures import Figure
from tests.benchmarks.gpu.timed_steps import (
    CLASSES,
    CROP,
    SIDE,
    VIEWS,
    calls_s,
    colour_data,
    medians_s,
    network,
    place,
    recipe,
    scale,
    student_sizes,
    windows,
)
from tests.benchmarks.steps import EMBEDDED, VIEW_SEED, cache_of
from tests.gpu.tried import tried_device
from trainables.cache.node.reader import CacheReader
from trainables.config import (
    OBJECTIVE_CONFIGS,
    CeConfig,
    KdConfig,
    ModelConfig,
    ModelName,
    Need,
    ViewsConfig,
)
from trainables.data import TrainingData
from trainables.models.embedding import classifier_of
from trainables.teacher.autocast import AutocastTeacher
from trainables.teacher.live import LiveTeacher
from trainables.teacher.online import OnlineTeacher
from trainables.tensors import to_device
from trainables.training.course import Course
from trainables.training.workbench import Workbench, render_budget

# N = training samples, B = samples in the batch, C = classes

STEP_BATCH: Final = 64
PASS_BATCH: Final = 512
PASS_BATCHES: Final = 20
GATHERED: Final = 512
GATHERS: Final = 200
# What a student's step costs does not depend on who answered: one whose pass over the data is short.
QUICK: Final = ModelConfig(name=ModelName.RESNET8, width=32)


@dataclass(frozen=True)
class Kept:
    """A cache, and the folder that it lies in as long as this is kept."""

    data: TrainingData
    reader: CacheReader
    folder: tempfile.TemporaryDirectory[str]

    @classmethod
    def of(
        cls,
        data: TrainingData,
        teacher: nn.Module,
        views: ViewsConfig,
        *,
        features: Mapping[str, tuple[str, ...]] | None = None,
    ) -> Kept:
        folder = tempfile.TemporaryDirectory(prefix="benchmark-")
        reader = cache_of(Path(folder.name), data, teacher, views, features=features, device=tried_device())
        return cls(data, reader, folder)

    def bench(self, views: ViewsConfig, budget_bytes: int) -> Workbench:
        return Workbench(
            self.data,
            views,
            view_seed=VIEW_SEED,
            device=tried_device(),
            cache=self.reader,
            render_budget_bytes=budget_bytes,
        )


@cache
def _objectives_cache() -> Kept:
    return Kept.of(colour_data(scale().n_train), network(QUICK), VIEWS, features=EMBEDDED)


@cache
def _objectives_bench() -> Workbench:
    return _objectives_cache().bench(VIEWS, render_budget(tried_device()))


@cache
def _wide_cache() -> Kept:
    """Answers of many classes about images of so few pixels that they take no room beside the logits."""
    data = colour_data(scale().n_train, side=4, classes=scale().gathered_classes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        teacher = nn.Sequential(nn.Flatten(), nn.Linear(48, scale().gathered_classes))
    return Kept.of(data, teacher, ViewsConfig())


def kd_step_over_ce() -> Figure:
    """Time of a step with KD from the cache, over that of a step with cross-entropy alone."""
    return _over_ce(_objectives_bench(), "KD, the teacher's logits from a cache of fp16 on the device")


def online_step_over_ce() -> Figure:
    """The same with the teacher run on each batch, as `cache: {online: true}` has it."""
    data = colour_data(scale().n_train)
    live = LiveTeacher(
        network(scale().teacher), data, seed=VIEW_SEED, batch_size=PASS_BATCH, device=tried_device()
    )
    bench = Workbench(
        data,
        VIEWS,
        view_seed=VIEW_SEED,
        device=tried_device(),
        cache=OnlineTeacher(live, VIEWS),
        render_budget_bytes=render_budget(tried_device()),
    )
    return _over_ce(bench, f"KD, teacher {scale().teacher.name} run on the same batch by OnlineTeacher")


def _over_ce(bench: Workbench, what: str) -> Figure:
    models = {"ce": network(scale().student), "kd": network(scale().student)}
    step_s = medians_s(
        bench,
        {
            "ce": lambda seed: Course(models["ce"], CeConfig(), recipe(STEP_BATCH), seed),
            "kd": lambda seed: Course(models["kd"], KdConfig(), recipe(STEP_BATCH), seed),
        },
    )
    how = (
        f"{windows()}, of {what} ({1e3 * step_s['kd']:.3f} ms), over cross-entropy alone "
        f"({1e3 * step_s['ce']:.3f} ms); {student_sizes(STEP_BATCH)}, fp32; {place()}"
    )
    return Figure(step_s["kd"] / step_s["ce"], "x", how)


def objective_step_over_ce(name: str) -> Figure:
    """Time of a step with this objective at its defaults, over that of a step with cross-entropy."""
    config, student = OBJECTIVE_CONFIGS[name](), scale().student
    if Need.COSINE_HEAD in config.needed:
        width = classifier_of(network(QUICK), CLASSES).in_features
        student = student.with_overrides(cosine_head=width)
    models = {"ce": network(scale().student), name: network(student)}
    step_s = medians_s(
        _objectives_bench(),
        {
            "ce": lambda seed: Course(models["ce"], CeConfig(), recipe(STEP_BATCH), seed),
            name: lambda seed: Course(models[name], config, recipe(STEP_BATCH), seed),
        },
    )
    views = "two views" if len(config.banks) > 1 else "one view"
    how = (
        f"{windows()}, with {name} at its defaults ({views} a sample, {1e3 * step_s[name]:.3f} ms), over "
        f"cross-entropy alone ({1e3 * step_s['ce']:.3f} ms); {student_sizes(STEP_BATCH)}, fp32; {place()}"
    )
    return Figure(step_s[name] / step_s["ce"], "x", how)


def gather_over_index_select(where: str) -> Figure:
    """Speed of a batch's answers from the bench, over that of `index_select` on a tensor on the device.

    `where` is resident, for answers that the bench keeps on the or mapped, for those that do not
    fit and come from the memory map on the host.
    """
    kept, views = _wide_cache(), ViewsConfig()
    bench = kept.bench(views, render_budget(tried_device()) if where == "resident" else 0)
    resident_NC = kept.reader.whole_view("weak", 0).logits_BC.to(tried_device())
    batches = torch.randint(kept.data.train.labels.shape[0], (64, scale().batch(GATHERED)))
    ours, theirs = _endless(batches), _endless(batches)
    ours_s, select_s = calls_s(
        lambda: bench.teacher("weak", 1, ours()),
        lambda: resident_NC.index_select(0, to_device(theirs(), tried_device())).float(),
        repeats=GATHERS,
    )
    how = (
        f"{scale().batch(GATHERED)} random rows of {resident_NC.shape[0]:,} x {resident_NC.shape[1]} in "
        f"fp16, to float32 on the medians of {scale().rounds} windows of {GATHERS} in turns: "
        f"`Workbench.teacher` with answers {where} ({1e6 * ours_s:.0f} us, confidences too), beside "
        f"`index_select` on a tensor on the device ({1e6 * select_s:.0f} us), row numbers from the host in "
        f"both; {place()}"
    )
    return Figure(select_s / ours_s, "x", how)


def teacher_pass_images_per_s(precision: str) -> Figure:
    """Images a second of the teacher's pass: views drawn and rendered, logits brought to the host."""
    sizes = scale()
    size, bare = sizes.batch(PASS_BATCH), network(sizes.teacher)
    teacher = bare if precision == "fp32" else AutocastTeacher(bare)
    rows_N = torch.arange(min(PASS_BATCHES * size, sizes.n_train))
    live = LiveTeacher(
        teacher, colour_data(sizes.n_train), seed=VIEW_SEED, batch_size=size, device=tried_device()
    )
    images = torch.rand(size, 3, SIDE, SIDE, device=tried_device()).contiguous(
        memory_format=torch.channels_last
    )

    @torch.inference_mode()
    def alone() -> None:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            teacher(images)

    pass_s, alone_s = calls_s(lambda: live.logits((CROP,), 0, rows_N), alone, repeats=3)
    bare_per_s = size / alone_s
    how = (
        f"{len(rows_N):,} images through LiveTeacher ({sizes.teacher.name}, batches of {size}, crop and "
        f"flip drawn and rendered, logits on the host), {precision}, without TF32, as in the cache "
        f"stage; the network alone on a batch on the device {bare_per_s:,.0f} images/s; {SIDE}x{SIDE} "
        f"colour images, medians of {sizes.rounds} windows; {place()}"
    )
    return Figure(len(rows_N) / pass_s, "images/s", how)


def _endless(batches: Tensor) -> Callable[[], Tensor]:
    place = -1

    def following() -> Tensor:
        nonlocal place
        place = (place + 1) % len(batches)
        return batches[place]

    return following
