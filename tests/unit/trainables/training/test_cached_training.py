"""The guarantee of cached distillation: an fp32 cache tells a student what the teacher would tell it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.unit.trainables.cache.tiny_caches import TinyCache
from tests.unit.trainables.training.small_courses import (
    CPU,
    SHORT,
    VIEWS,
    same_weights,
    separable_data,
    small_course,
    small_student,
    small_workbench,
    untimed,
    weights_of,
)
from trainables.cache.format.planning import shards_of
from trainables.config import (
    CeConfig,
    CrldConfig,
    DistConfig,
    DkdConfig,
    KdConfig,
    MlldConfig,
    Normalisation,
    ObjectiveBase,
    Precision,
)
from trainables.config.objectives import AektConfig, AkdConfig, CkdConfig, ClkdConfig, CtkdConfig
from trainables.data.splits import split_facts
from trainables.models.modes import evaluating
from trainables.models.renormalised import renormalised
from trainables.objectives.terms.divergences import confidence_B
from trainables.signals import TeacherSignal
from trainables.training.course import Course
from trainables.training.loop import train
from trainables.training.workbench import Workbench

pytestmark = pytest.mark.usefixtures("one_thread")

OBJECTIVES: dict[str, ObjectiveBase] = {
    "kd": KdConfig(temperature=2.0, kd_weight=3.0),
    "lskd": KdConfig(standardise=True, temperature=2.0, kd_weight=9.0),
    "dkd": DkdConfig(),
    "aekt": AektConfig(),
    "akd": AkdConfig(steps=2, attack_target="mixture"),
    "dist": DistConfig(),
    "ctkd": CtkdConfig(),
    "clkd": ClkdConfig(covariance_weight=1e-5),
    "ckd": CkdConfig(contrast_weight=1.0),
    "mlld": MlldConfig(),
    "crld": CrldConfig(),
}
TOGETHER = 7  # rows in a forward pass of the tiny's cache


class OnlineWorkbench(Workbench):
    """Runs the teacher beside the student, on the very views that the student was shown last."""

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__(separable_data(), VIEWS, view_seed=7, device=CPU)
        self._shown: dict[str, int] = {}
        self._live = teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def images(self, bank: str, epoch: int, rows_B: Tensor) -> Tensor:
        self._shown[bank] = epoch
        return super().images(bank, epoch, rows_B)

    def teacher(self, bank: str, epoch: int, rows_B: Tensor, *_: object, **__: object) -> TeacherSignal:
        logits_BC = self.live_logits(bank, self._shown[bank], rows_B)
        return TeacherSignal(logits_BC, confidence_B(logits_BC))

    def live_logits(self, bank: str, epoch: int, rows_B: Tensor) -> Tensor:
        images = super().images(bank, epoch, rows_B).contiguous(memory_format=torch.channels_last)
        with evaluating(self._live), torch.no_grad():
            logits_BC: Tensor = self._live(images)
        return logits_BC


class SameBatchesWorkbench(OnlineWorkbench):
    """Asks the teacher about a whole view in the cache's batches, and picks the rows of the step.

    The sums inside a forward pass are taken in an order that depends on the number of rows in it, so one
    row's logits may differ in the last bit from batch to batch. The cache asks in the order of the rows,
    training in a shuffled one: only with the same batches can the two agree in every bit.
    """

    def live_logits(self, bank: str, epoch: int, rows_B: Tensor) -> Tensor:
        chunks = [
            chunk
            for shard in shards_of(bank, 1, n_rows=self.n_train, rows_per_shard=16)
            for chunk in torch.split(torch.arange(shard.first, shard.first + shard.rows), TOGETHER)
        ]
        return torch.cat(
            [super(SameBatchesWorkbench, self).live_logits(bank, epoch, rows) for rows in chunks]
        )[rows_B]


OWN = Normalisation(mean=(0.45,), std=(0.3,))


@pytest.fixture(scope="module", params=[None, OWN], ids=["", "other_normalisation"])
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyCache:
    """The cache of a teacher that knows its task, so that the confidence gates of CRLD open and close.

    The second time its images are normalised in another way than the student's.
    """
    data, folder = separable_data(), tmp_path_factory.mktemp("lab")
    teacher = small_student(seed=9)
    train(Course(teacher, CeConfig(), SHORT, 1), small_workbench(), on_epoch=lambda *_: None)
    teacher = renormalised(teacher, request.param, data_mean=data.mean, data_std=data.std)
    tiny = TinyCache(folder, data, teacher, split_facts(data), views=VIEWS, precision=Precision.FP32)
    tiny.build()
    return tiny


def trajectory(
    workbench: Workbench, objective: ObjectiveBase
) -> list[tuple[dict[str, Tensor], dict[str, float]]]:
    """Weights and metrics after each epoch."""
    course = small_course(objective=objective)
    points: list[tuple[dict[str, Tensor], dict[str, float]]] = []
    train(course, workbench, on_epoch=lambda _, m: points.append((weights_of(course.model), untimed(m))))
    return points


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_cached_training_is_online_training_bit_for_bit(tiny: TinyCache, objective: ObjectiveBase) -> None:
    cached = trajectory(small_workbench(tiny.data, cache=tiny.open()), objective)
    online = trajectory(SameBatchesWorkbench(tiny.teacher), objective)
    assert len(cached) == len(online) == SHORT.epochs
    for (weights, metrics), (other_weights, other_metrics) in zip(cached, online, strict=True):
        assert same_weights(weights, other_weights)
        assert metrics == other_metrics


def test_a_teacher_asked_in_the_batches_of_training_leads_to_the_same_student_within_rounding(
    tiny: TinyCache,
) -> None:
    cached = trajectory(small_workbench(tiny.data, cache=tiny.open()), OBJECTIVES["kd"])
    online = trajectory(OnlineWorkbench(tiny.teacher), OBJECTIVES["kd"])
    for (weights, _), (other_weights, _) in zip(cached, online, strict=True):
        torch.testing.assert_close(weights, other_weights, atol=1e-4, rtol=1e-4)


def test_the_teacher_makes_a_difference(tiny: TinyCache) -> None:
    """Without this, the tests above could pass with a teacher that nobody hears."""
    cached = trajectory(small_workbench(tiny.data, cache=tiny.open()), OBJECTIVES["kd"])
    other = trajectory(SameBatchesWorkbench(small_student(seed=10)), OBJECTIVES["kd"])
    assert not same_weights(cached[0][0], other[0][0])
