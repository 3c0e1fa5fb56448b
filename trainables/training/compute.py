"""What a step of training computes, counted once for a course: floating-point operations of its products."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from trainables.config import CeConfig
from trainables.config.metrics import COMPUTE_OVER_CE, FLOPS_PER_IMAGE
from trainables.training.batches import epoch_batches, hears_unlabelled
from trainables.training.course import Course
from trainables.training.loop import step_once
from trainables.training.ranks import SOLO
from trainables.training.workbench import Workbench

_PURPOSE: Final = "counted"


@dataclass(frozen=True)
class Compute:
    """What one epoch of a course computes."""

    per_image: float
    """Operations of a step, for each image."""
    images: int
    """Images of an epoch, unlabelled ones too."""

    @property
    def per_epoch(self) -> float:
        """Operations of an epoch."""
        return self.per_image * self.images


def compute_of(course: Course, workbench: Workbench) -> Compute:
    """Count one step of a course: forward and backward passes of student, peers and objective, and attacks.

    Counted are products of matrices, convolutions and attention, a multiplication and an addition as two
    operations, as `torch.utils.flop_counter` does; what is done element by element is left out, and so are
    the teacher, whose answers are kept, and evaluation. The numbers follow from shapes alone: they hang on no
    clock, no device and no weights.

    The step is that of networks made for it (`Course.fresh`), without compilation, whose code cannot be
    looked into. Nothing of the course changes, and no random number of it is drawn.

    Raises:
        ValueError: the course makes no other networks of its shape.
        TrialFailed: student or teacher cannot give what the objective needs.
    """
    training, data = course.training.model_copy(update={"ema": None}), workbench.data
    batches = epoch_batches(
        data, training, seed=course.seed, epoch=1, unlabelled=hears_unlabelled(course.objective, data)
    )
    cuda = [workbench.device] if workbench.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        throwaway = replace(_fresh(course), training=training)
        counter = _Counter()
        with workbench.said.asked_within(counter.teacher):
            images = step_once(throwaway, workbench, share_of=course.team, within=counter.student)
    workbench.said.take_live_s()
    return Compute(counter.flops / images, sum(len(batch.rows_B) for batch in batches))


def cross_entropy_of(course: Course) -> Course:
    """The same student and recipe with cross-entropy, as its control has them."""
    return replace(course, objective=CeConfig(), peers=())


def compute_figures(own: Compute, cross_entropy: Compute) -> dict[str, float]:
    """What is told with an epoch's metrics; nothing where the networks have no product to count."""
    if not own.per_epoch or not cross_entropy.per_epoch:
        return {}
    return {FLOPS_PER_IMAGE: own.per_image, COMPUTE_OVER_CE: own.per_epoch / cross_entropy.per_epoch}


def _fresh(course: Course) -> Course:
    """The course with other networks of the same shapes, one rank, and nothing compiled."""
    if course.fresh is None:
        raise ValueError("the course makes no other networks of its shape, so its compute cannot be counted")
    peers = tuple(
        replace(peer, model=course.fresh(_PURPOSE, number), forward=None, tap=None)
        for number, peer in enumerate(course.peers, start=1)
    )
    model = course.fresh(_PURPOSE, 0)
    return replace(course, model=model, forward=None, tap=None, peers=peers, team=SOLO)


class _Counter:
    """Counts operations of the student's side; those of the teacher stand apart."""

    def __init__(self) -> None:
        self._mode = FlopCounterMode(display=False, custom_mapping=_cpu_attention())
        self._of_teacher = 0

    @property
    def flops(self) -> int:
        return self._mode.get_total_flops() - self._of_teacher

    @contextmanager
    def student(self) -> Iterator[None]:
        with self._mode:
            yield

    @contextmanager
    def teacher(self) -> Iterator[None]:
        before = self._mode.get_total_flops()
        yield
        self._of_teacher += self._mode.get_total_flops() - before


def _cpu_attention() -> dict[Any, Any]:
    """Attention as it is computed on a CPU, which PyTorch's counter does not know."""
    aten = torch.ops.aten

    def forward(query: Any, key: Any, value: Any, *_: object, **__: object) -> int:
        return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]

    def backward(gradient: Any, query: Any, key: Any, value: Any, *_: object, **__: object) -> int:
        return int(sdpa_backward_flop_count(gradient, query, key, value))  # type: ignore[no-untyped-call]

    return {
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
