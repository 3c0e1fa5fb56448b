"""Training steps on a GPU: how fast, in which precision and layout, and what the loop costs beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.benchmarks.figures import Figure
from tests.benchmarks.gpu.timed_steps import (
    between,
    calls_s,
    medians_s,
    network,
    place,
    plain_bench,
    recipe,
    scale,
    student_sizes,
    windows,
)
from tests.gpu.tried import tried_device
from trainables.config import CeConfig, TrainingPrecision
from trainables.slots.compiled_students import CompiledStudents
from trainables.tensors import memory_format
from trainables.training.course import Course
from trainables.training.optimisers import build_optimizer
from trainables.training.precision import autocast, by_table
from trainables.views.normalise import normalise

# N = training samples, B = samples in the batch

USUAL_BATCH: Final = 128
TF32: Final = "fp32 is PyTorch's own: convolutions in TF32"


def train_images_per_s(precision: str, batch: str) -> Figure:
    """Images a second of the loop's training steps."""
    size, wanted = scale().batch(int(batch)), TrainingPrecision(precision)
    model = network(scale().student)
    step_s = medians_s(
        plain_bench(), {"ce": lambda seed: Course(model, CeConfig(), recipe(size), seed, wanted)}
    )["ce"]
    how = (
        f"images over {windows()}, with cross-entropy ({1e3 * step_s:.3f} ms a step); "
        f"{student_sizes(size)}, {precision}, {_layout(model)}; {TF32}; {place()}"
    )
    return Figure(size / step_s, "images/s", how)


def loop_over_plain_torch(precision: str) -> Figure:
    """Images a second of the loop's steps, over those of a loop by hand on float images that lie ready."""
    wanted, model, bench = TrainingPrecision(precision), network(scale().student), plain_bench()
    size = scale().batch(USUAL_BATCH)
    images_NCHW = normalise(bench.data.train.images[:].to(tried_device()), bench.data.mean, bench.data.std)
    by_hand = HandMade.of(images_NCHW, bench.labels_N, wanted)
    order = torch.randperm(bench.n_train, device=tried_device())
    batches = iter(list(torch.split(order, size))[: bench.n_train // size] * 100)
    (plain_s,) = calls_s(lambda: by_hand.step(next(batches)), repeats=scale().steps)
    ours_s = medians_s(bench, {"ce": lambda seed: Course(model, CeConfig(), recipe(size), seed, wanted)})[
        "ce"
    ]
    how = (
        f"{windows()}, with cross-entropy on crop-flip views ({1e3 * ours_s:.3f} ms), and a loop by hand on "
        f"normalised images that lie on the with torch's SGD ({1e3 * plain_s:.3f} ms); "
        f"{student_sizes(size)}, {precision}, {_layout(model)}; {TF32}; {place()}"
    )
    return Figure(plain_s / ours_s, "x", how)


def auto_precision_gain(batch: str) -> Figure:
    """Images a second in the precision that auto chooses, over those in fp32."""
    size, bench = scale().batch(int(batch)), plain_bench()
    chosen = by_table(network(scale().student), tried_device(), bench.input_shape)
    both = (TrainingPrecision.FP32, TrainingPrecision.BF16)
    models = {precision: network(scale().student) for precision in both}

    def course_in(precision: TrainingPrecision) -> Callable[[int], Course]:
        return lambda seed: Course(models[precision], CeConfig(), recipe(size), seed, precision)

    step_s = medians_s(bench, {precision.value: course_in(precision) for precision in both})
    gain = step_s["fp32"] / step_s[chosen.precision.value]
    how = (
        f"auto chose {chosen}; the figure is its speed over "
        f"fp32's, {windows()}: fp32 {1e3 * step_s['fp32']:.3f} ms, bf16 {1e3 * step_s['bf16']:.3f} ms a "
        f"step; {student_sizes(size)}; {TF32}; {place()}"
    )
    return Figure(gain, "x", how)


def channels_last_gain(precision: str) -> Figure:
    """Speed of a step in channels_last, the layout of the loop, over that of the same step contiguously."""
    size, wanted = scale().batch(512), TrainingPrecision(precision)
    last, plain = (
        HandMade.on_noise(size, wanted, layout=layout)
        for layout in (torch.channels_last, torch.contiguous_format)
    )
    last_s, plain_s = calls_s(last.step, plain.step, repeats=scale().steps)
    how = (
        f"medians of {scale().rounds} windows of {scale().steps} steps of a loop by hand on one batch, in "
        f"turns: contiguous {1e3 * plain_s:.3f} ms, channels_last {1e3 * last_s:.3f} ms; "
        f"{student_sizes(size)}, {precision}; {TF32}; {place()}"
    )
    return Figure(plain_s / last_s, "x", how)


def compile_gain(precision: str) -> Figure:
    """Speed of the loop's steps with `training.compile`, over that without."""
    size, wanted = scale().batch(USUAL_BATCH), TrainingPrecision(precision)
    model = network(scale().student)
    students = CompiledStudents(backend="inductor" if tried_device().type == "cuda" else "aot_eager")
    compiled = students.take("only", network(scale().student))
    step_s = medians_s(
        plain_bench(),
        {
            "plain": lambda seed: Course(model, CeConfig(), recipe(size), seed, wanted),
            "compiled": lambda seed: Course(
                compiled.model, CeConfig(), recipe(size), seed, wanted, compiled.forward
            ),
        },
    )
    how = (
        f"{windows()}, with cross-entropy: plain {1e3 * step_s['plain']:.3f} ms, compiled "
        f"{1e3 * step_s['compiled']:.3f} ms; {student_sizes(size)}, {precision}; {TF32}; {place()}"
    )
    return Figure(step_s["plain"] / step_s["compiled"], "x", how)


def rerun_drift() -> Figure:
    """Distance between the weights of two equal courses, over the way that training went."""
    size, bench = scale().batch(USUAL_BATCH), plain_bench()
    start = _flat(network(scale().student))
    ends = []
    for _ in range(2):
        model = network(scale().student)
        between(Course(model, CeConfig(), recipe(size), 1), bench, _nothing, _nothing)
        ends.append(_flat(model))
    drift = float((ends[0] - ends[1]).norm() / (ends[0] - start).norm())
    how = (
        f"L2 distance of the weights of two courses with the same seed on the same over that from "
        f"the first weights; {scale().dropped + scale().steps} steps with cross-entropy, PyTorch's own "
        f"settings, in which kernels need not be deterministic; {student_sizes(size)}, fp32; {place()}"
    )
    return Figure(drift, "x", how)


@dataclass(frozen=True)
class HandMade:
    """What one writes without a library: images that lie ready, an optimiser, five lines a step."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    images_NCHW: Tensor
    labels_N: Tensor
    precision: TrainingPrecision

    @classmethod
    def of(
        cls,
        images_NCHW: Tensor,
        labels_N: Tensor,
        precision: TrainingPrecision,
        *,
        layout: torch.memory_format | None = None,
        fused: bool = False,
    ) -> HandMade:
        """A student for these images; torch's SGD as it comes, or the loop's with `fused`."""
        model = network(scale().student)
        layout = layout or memory_format(model)
        model = model.to(tried_device(), memory_format=layout).train()  # type: ignore[call-overload]
        config = recipe(USUAL_BATCH)
        optimizer: torch.optim.Optimizer = torch.optim.SGD(
            model.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
        if fused:
            optimizer = build_optimizer(model, config)
        images_NCHW = images_NCHW.contiguous(memory_format=layout)
        return cls(model, optimizer, images_NCHW, labels_N, precision)

    @classmethod
    def on_noise(
        cls,
        batch: int,
        precision: TrainingPrecision,
        *,
        layout: torch.memory_format | None = None,
        fused: bool = False,
    ) -> HandMade:
        """On one batch of noise."""
        bench = plain_bench()
        images_NCHW = normalise(
            bench.data.train.images[:batch].to(tried_device()), bench.data.mean, bench.data.std
        )
        return cls.of(images_NCHW, bench.labels_N[:batch], precision, layout=layout, fused=fused)

    def step(self, rows_B: Tensor | None = None) -> None:
        """One training step, on these rows or on all."""
        images = self.images_NCHW if rows_B is None else self.images_NCHW[rows_B]
        labels = self.labels_N if rows_B is None else self.labels_N[rows_B]
        with autocast(self.precision, images.device):
            logits_BC = self.model(images)
        loss = F.cross_entropy(logits_BC.float(), labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()


def _layout(model: nn.Module) -> str:
    return "channels_last" if memory_format(model) is torch.channels_last else "contiguous"


def _flat(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten().cpu() for parameter in model.parameters()])


def _nothing() -> None:
    return
