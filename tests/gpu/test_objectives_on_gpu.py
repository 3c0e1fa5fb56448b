"""Every objective on a GPU: one epoch from the cache leads where it leads on the CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.gpu.compared_courses import Lost, assert_close, assert_same, bench_on, run
from tests.unit.trainables.cache.tiny_caches import TinyCache
from tests.unit.trainables.objective_variants import (
    TAUGHT_BANKS,
    VARIANTS,
    peers_for,
    student_for,
    taught_features,
    variants_teacher,
)
from tests.unit.trainables.training.small_courses import CPU, SHORT, VIEWS, separable_data
from trainables.config import ObjectiveBase, TrainingConfig, TrainingPrecision
from trainables.config.objectives import AkdConfig, CtkdConfig, PskdConfig
from trainables.data.splits import split_facts
from trainables.objectives.terms.row_tables import write_last
from trainables.training.course import Course
from trainables.training.progress.checkpoints import CheckpointFolder

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("exact")]

# Clipped, so that no objective multiplies the rounding of one step by the size of its gradient in the next.
CALM = SHORT.with_overrides(epochs=2, clip_norm=0.5, ema=0.9)
# A random start is drawn by the device's own generator.
OBJECTIVES = {**VARIANTS, "akd": AkdConfig(random_start=False)}
STATEFUL: dict[str, ObjectiveBase] = {
    "ctkd": CtkdConfig(curriculum_epochs=3),
    "pskd": PskdConfig(),
    "akd": AkdConfig(steps=2, attack_target="mixture"),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyCache:
    data, folder = separable_data(), tmp_path_factory.mktemp("lab")
    tiny = TinyCache(
        folder, data, variants_teacher(), split_facts(data), views=VIEWS, features=taught_features()
    )
    tiny.build(TAUGHT_BANKS)
    return tiny


def course_of(objective: ObjectiveBase, training: TrainingConfig = CALM) -> Course:
    return Course(student_for(objective), objective, training, 3, peers=peers_for(objective))


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_an_objective_trains_on_a_gpu_as_on_the_cpu(
    device: torch.device, tiny: TinyCache, objective: ObjectiveBase
) -> None:
    there, here = (
        run(course_of(objective), bench_on(where, data=tiny.data, cache=tiny.open()))
        for where in (device, CPU)
    )
    assert_close(there, here, logits=5e-4, means=1e-3)


@pytest.mark.parametrize("objective", VARIANTS.values(), ids=VARIANTS)
def test_an_objective_under_bf16_stays_near_its_fp32_losses(
    device: torch.device, tiny: TinyCache, objective: ObjectiveBase
) -> None:
    """The network computes in bf16; a loss computed in it would be off by whole percents, or not finite."""
    bench = bench_on(device, data=tiny.data, cache=tiny.open())
    alone = dict(objective).get("hint_epochs", 0)  # one epoch more than the hint has for itself
    one = CALM.with_overrides(epochs=1 + alone, lr=1e-4)
    half, full = (
        run(course_of(objective, one.with_overrides(precision=precision)), bench).told[0]
        for precision in (TrainingPrecision.BF16, TrainingPrecision.FP32)
    )
    assert half["train/loss"] == pytest.approx(full["train/loss"], rel=0.03)


def test_of_a_row_that_comes_many_times_the_last_value_is_written(device: torch.device) -> None:
    """By index alone a GPU writes any of them."""
    rows_B = torch.arange(4096, device=device) % 3
    table_N, values_B = torch.zeros(4, device=device), torch.arange(4096.0, device=device)
    write_last(table_N, rows_B, values_B)
    assert table_N.tolist() == [4095.0, 4093.0, 4094.0, 0.0]


@pytest.mark.parametrize("objective", STATEFUL.values(), ids=STATEFUL)
def test_an_objective_with_a_state_goes_on_after_a_kill_to_the_same_end(
    tmp_path: Path, device: torch.device, tiny: TinyCache, objective: ObjectiveBase
) -> None:
    bench, files = (
        bench_on(device, data=tiny.data, cache=tiny.open()),
        CheckpointFolder(tmp_path, spec_digest="a"),
    )
    whole = run(course_of(objective, SHORT), bench)
    with pytest.raises(Lost):
        run(course_of(objective, SHORT), bench, files=files, dies_in=3)
    again = run(course_of(objective, SHORT), bench, files=files)
    assert again.told == whole.told[2:]
    assert_same(again, replace(whole, told=again.told))
