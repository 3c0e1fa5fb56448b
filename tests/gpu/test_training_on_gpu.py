"""The one loop on a GPU: it follows the CPU, repeats itself to the bit, and goes on where it was killed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.gpu.compared_courses import Lost, assert_close, assert_same, bench_on, logits_of, resnet, run
from tests.unit.trainables.training.small_courses import CPU, SHORT, small_course, small_student, weights_of
from trainables.config import CeConfig, OptimizerName, TrainingConfig, TrainingPrecision
from trainables.evaluation.profiling import device_name, profile_student
from trainables.models.weights import load_weights
from trainables.training.course import Course
from trainables.training.learners.ema import WeightAverage
from trainables.training.optimisers import build_optimizer
from trainables.training.progress.checkpoints import CheckpointFolder

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("exact")]

RECIPES = {
    "sgd": SHORT,
    "nesterov, smoothed": SHORT.with_overrides(nesterov=True, label_smoothing=0.1, warmup_epochs=1.0),
    "adamw": SHORT.with_overrides(optimizer=OptimizerName.ADAMW, lr=0.001),
    "mean of weights, clipped": SHORT.with_overrides(ema=0.9, clip_norm=0.5),
    "bf16": SHORT.with_overrides(precision=TrainingPrecision.BF16),
}
IN_FP32 = [name for name in RECIPES if name != "bf16"]


@pytest.mark.parametrize("recipe", IN_FP32)
def test_a_student_on_a_gpu_follows_the_one_on_the_cpu(device: torch.device, recipe: str) -> None:
    # Two epochs: training is chaotic, so differences in the last bit grow from step to step.
    training = RECIPES[recipe].with_overrides(epochs=2)
    there, here = (run(Course(resnet(), CeConfig(), training, 3), bench_on(where)) for where in (device, CPU))
    assert_close(there, here, logits=3e-3, means=1e-3)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_course_on_a_gpu_is_the_same_again_to_the_bit(device: torch.device, recipe: str) -> None:
    one, again = (run(Course(resnet(), CeConfig(), RECIPES[recipe], 3), bench_on(device)) for _ in range(2))
    assert_same(one, again)


@pytest.mark.parametrize("dies_in", [3, 4])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_killed_course_on_a_gpu_goes_on_to_the_same_end(
    tmp_path: Path, device: torch.device, recipe: str, dies_in: int
) -> None:
    """The student has dropout, whose masks come from the GPU's own generator."""
    files = CheckpointFolder(tmp_path, spec_digest="a")
    whole = run(small_course(RECIPES[recipe]), bench_on(device))
    with pytest.raises(Lost):
        run(small_course(RECIPES[recipe]), bench_on(device), files=files, dies_in=dies_in)
    again = run(small_course(RECIPES[recipe]), bench_on(device), files=files)
    assert again.told == whole.told[-len(again.told) :]
    assert len(again.told) == SHORT.epochs - 2 * ((dies_in - 1) // 2)
    assert all(torch.equal(again.weights[name], value) for name, value in whole.weights.items())


@pytest.mark.parametrize("first_on_gpu", [True, False], ids=["from gpu to cpu", "from cpu to gpu"])
def test_a_course_that_changes_devices_goes_on(
    tmp_path: Path, device: torch.device, first_on_gpu: bool
) -> None:
    files = CheckpointFolder(tmp_path, spec_digest="a")
    training = RECIPES["mean of weights, clipped"]
    first, second = (device, CPU) if first_on_gpu else (CPU, device)
    with pytest.raises(Lost):
        run(Course(resnet(), CeConfig(), training, 3), bench_on(first), files=files, dies_in=3)
    moved = run(Course(resnet(), CeConfig(), training, 3), bench_on(second), files=files)
    whole = run(Course(resnet(), CeConfig(), training, 3), bench_on(CPU))
    torch.testing.assert_close(moved.logits_BC, whole.logits_BC, rtol=0, atol=5e-3)


@pytest.mark.parametrize("optimizer", list(OptimizerName))
def test_the_optimiser_is_fused_and_steps_as_the_plain_one(
    device: torch.device, optimizer: OptimizerName
) -> None:
    training = TrainingConfig(optimizer=optimizer, lr=0.01)
    ours, plain = small_student().to(device), small_student().to(device)
    fused = build_optimizer(ours, training)
    assert fused.param_groups[0]["fused"] is True
    if optimizer is OptimizerName.ADAMW:
        other: torch.optim.Optimizer = torch.optim.AdamW(
            plain.parameters(), lr=0.01, weight_decay=training.weight_decay, fused=False
        )
    else:
        other = torch.optim.SGD(
            plain.parameters(),
            lr=0.01,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
            fused=False,
        )
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        for mine, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
            mine.grad = torch.randn(mine.shape, generator=generator).to(device)
            theirs.grad = mine.grad.clone()
        fused.step()
        other.step()
    torch.testing.assert_close(weights_of(ours), weights_of(plain), rtol=1e-5, atol=1e-6)


def test_the_mean_of_weights_is_that_of_the_cpu(device: torch.device) -> None:
    there, here = (WeightAverage(small_student().to(where), 0.9) for where in (device, CPU))
    for seed in range(5):
        there.update(small_student(seed).to(device))
        here.update(small_student(seed))
    assert all(value.device.type == device.type for value in there.state().values())
    for name, value in here.state().items():
        torch.testing.assert_close(there.state()[name].cpu(), value, rtol=1e-6, atol=1e-7)


def test_best_weights_written_from_a_gpu_are_read_on_the_cpu(tmp_path: Path, device: torch.device) -> None:
    course = Course(resnet(), CeConfig(), SHORT.with_overrides(epochs=1), 3)
    run(course, bench_on(device))
    files = CheckpointFolder(tmp_path, spec_digest="a")
    path = files.save_best(course.model, {})
    back = resnet(seed=1)
    load_weights(back, path)
    torch.testing.assert_close(logits_of(back), logits_of(course.model), rtol=0, atol=1e-4)


def test_a_student_is_profiled_on_the_device_that_it_is_on(device: torch.device) -> None:
    figures = profile_student(resnet().to(device), input_shape=(1, 8, 8))
    assert figures.latency_device == device_name(device)
    assert 0 < figures.latency_ms <= figures.latency_p95_ms
