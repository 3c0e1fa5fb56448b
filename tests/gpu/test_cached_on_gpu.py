"""The guarantee of cached distillation on a GPU: an fp32 cache says what the teacher there would say."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from tests.gpu.compared_courses import assert_same, bench_on, exact_sums, run
from tests.unit.trainables.cache.tiny_caches import TinyCache
from tests.unit.trainables.training.small_courses import (
    CPU,
    SHORT,
    VIEWS,
    separable_data,
    small_course,
    small_student,
)
from trainables.cache.format.planning import shards_of
from trainables.config import (
    CeConfig,
    CrldConfig,
    DistConfig,
    DkdConfig,
    KdConfig,
    MlldConfig,
    ModelConfig,
    ModelName,
    ObjectiveBase,
    Precision,
)
from trainables.config.objectives import AkdConfig, CtkdConfig
from trainables.data.splits import split_facts
from trainables.models import build_model
from trainables.signals import TeacherSignal
from trainables.teacher.live import LiveTeacher
from trainables.teacher.online import OnlineTeacher
from trainables.training.course import Course
from trainables.training.loop import train
from trainables.training.workbench import Workbench

pytestmark = pytest.mark.gpu

OBJECTIVES: dict[str, ObjectiveBase] = {
    "kd": KdConfig(temperature=2.0, kd_weight=3.0),
    "dkd": DkdConfig(),
    "akd": AkdConfig(steps=2, attack_target="mixture"),
    "dist": DistConfig(),
    "ctkd": CtkdConfig(),
    "mlld": MlldConfig(),
    "crld": CrldConfig(),
}


class SameBatchesBench(Workbench):
    """Asks the teacher about a whole view in the cache's batches, and picks the rows of the step.

    Which sums a forward pass takes depends on the number of rows in it, so one row's logits may differ in
    the last bit from batch to batch.
    """

    def __init__(self, tiny: TinyCache) -> None:
        super().__init__(tiny.data, VIEWS, view_seed=tiny.seed, device=tiny.device)
        self._lab = tiny
        self._teacher = OnlineTeacher(tiny.live(), VIEWS)

    def teacher(self, bank: str, epoch: int, rows_B: Tensor, *_: object, **__: object) -> TeacherSignal:
        view, per_shard = self.view_of(bank, epoch), self._lab.rows_per_shard
        parts = [
            self._teacher.signal(bank, view, torch.arange(shard.first, shard.first + shard.rows))
            for shard in shards_of(bank, 1, n_rows=self.n_train, rows_per_shard=per_shard)
        ]
        logits_NC = torch.cat([part.logits_BC for part in parts])
        confidence_N = torch.cat([part.confidence_B for part in parts])
        return TeacherSignal(logits_NC[rows_B].to(self.device), confidence_N[rows_B].to(self.device))


@pytest.fixture(scope="module")
def tiny(device: torch.device, tmp_path_factory: pytest.TempPathFactory) -> TinyCache:
    """The cache that a teacher on the GPU wrote; it knows its task, so that CRLD's gates open and close."""
    data, folder, teacher = separable_data(), tmp_path_factory.mktemp("lab"), small_student(seed=9)
    train(Course(teacher, CeConfig(), SHORT, 1), bench_on(CPU), on_epoch=lambda *_: None)
    # The kernels that a student's teacher will run: others would be right as well, but not to the bit.
    tiny = TinyCache(
        folder, data, teacher, split_facts(data), views=VIEWS, precision=Precision.FP32, device=device
    )
    with exact_sums():
        tiny.build()
    return tiny


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_cached_training_on_a_gpu_is_online_training_to_the_bit(
    device: torch.device, tiny: TinyCache, objective: ObjectiveBase
) -> None:
    cached = run(small_course(objective=objective), bench_on(device, data=tiny.data, cache=tiny.open()))
    online = run(small_course(objective=objective), SameBatchesBench(tiny))
    assert_same(cached, online)


def test_a_teacher_computes_in_fp32_on_a_gpu_that_is_allowed_tf32(device: torch.device) -> None:
    """TF32 would be off by some thousandths; the cache of a GPU serves students on other devices."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_model(ModelConfig(name=ModelName.RESNET20, width=16), n_classes=3, in_channels=1)
    data = separable_data()
    rows = torch.arange(len(data.train.labels))
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
        here, there = (
            LiveTeacher(network, data, seed=7, batch_size=16, device=where).logits(VIEWS.weak.recipe, 1, rows)
            for where in (CPU, device)
        )
    assert there.device.type == "cpu"
    torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-4 * float(here.abs().max()))


def test_a_cache_from_a_gpu_holds_what_one_from_the_cpu_holds_but_for_rounding(
    tiny: TinyCache, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from_cpu = replace(tiny, folder=tmp_path_factory.mktemp("cpu"), device=CPU)
    from_cpu.build()
    one, other = tiny.open("one"), from_cpu.open("other")
    rows = torch.arange(len(tiny.data.train.labels))
    for bank, view in (("weak", 0), ("weak", 2), ("strong", 1)):
        found, expected = one.signal(bank, view, rows), other.signal(bank, view, rows)
        for field in fields(TeacherSignal):
            value, wanted = getattr(found, field.name), getattr(expected, field.name)
            torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-4)
