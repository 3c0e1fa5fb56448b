"""A threshold is held against the confidence of the cache, in fp32, and each epoch tells what it kept."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.unit.trainables.cache.tiny_caches import TinyCache
from tests.unit.trainables.training.small_courses import (
    SHORT,
    VIEWS,
    separable_data,
    small_course,
    small_student,
    small_workbench,
)
from trainables.config import CrldConfig, Gate, ObjectiveBase, Precision
from trainables.data.splits import split_facts
from trainables.training.loop import train
from trainables.training.workbench import Workbench

pytestmark = pytest.mark.usefixtures("one_thread")

# B = samples in the batch, C = classes
N_TRAIN = 40
ROWS = torch.arange(N_TRAIN)
FOUR_FULL_BATCHES = SHORT.with_overrides(epochs=3, batch_size=10)


@pytest.fixture(scope="module", params=[Precision.FP32, Precision.FP16, Precision.INT8])
def workbench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    data, folder = separable_data(N_TRAIN), tmp_path_factory.mktemp("lab")
    tiny = TinyCache(
        folder, data, small_student(seed=9), split_facts(data), views=VIEWS, precision=request.param
    )
    tiny.build()
    return small_workbench(tiny.data, cache=tiny.open())


def confidence(workbench: Workbench, bank: str, epoch: int) -> Tensor:
    return workbench.teacher(bank, epoch, ROWS).confidence_B


def told(workbench: Workbench, objective: ObjectiveBase) -> list[dict[str, float]]:
    metrics: list[dict[str, float]] = []
    course = small_course(FOUR_FULL_BATCHES, objective=objective)
    train(course, workbench, on_epoch=lambda _, figures: metrics.append(figures))
    return metrics


def middle_of(values_B: Tensor) -> float:
    """A value that one of the samples has to the bit."""
    return float(values_B.sort().values[len(values_B) // 2])


@pytest.mark.parametrize("bank", ["weak", "strong"])
def test_the_cached_confidence_is_the_largest_probability_at_temperature_one_in_fp32(
    workbench: Workbench, bank: str
) -> None:
    for epoch in (1, 2):
        signal = workbench.teacher(bank, epoch, ROWS)
        assert signal.confidence_B.dtype is torch.float32
        exact_B = signal.logits_BC.double().softmax(dim=-1).amax(dim=-1)
        torch.testing.assert_close(signal.confidence_B.double(), exact_B, rtol=3e-7, atol=0)


def test_a_threshold_that_a_sample_has_to_the_bit_keeps_it_and_the_next_larger_one_does_not(
    workbench: Workbench,
) -> None:
    confidence_B = confidence(workbench, "weak", 1)
    at = torch.tensor(middle_of(confidence_B))
    above = torch.nextafter(at, torch.tensor(2.0))
    kept = [
        told(workbench, CrldConfig(weak_threshold=float(threshold)))[0]["train/kept_weak"]
        for threshold in (at, above)
    ]
    expected = [(confidence_B >= at).float().mean().item(), (confidence_B > at).float().mean().item()]
    assert kept == pytest.approx(expected, rel=1e-6)
    assert kept[0] > kept[1]


@pytest.mark.parametrize("gate", list(Gate))
def test_every_epoch_tells_the_fraction_of_its_samples_that_each_threshold_kept(
    workbench: Workbench, gate: Gate
) -> None:
    weak, strong = (middle_of(confidence(workbench, bank, 2)) for bank in ("weak", "strong"))
    found = told(
        workbench, CrldConfig(weak_threshold=weak, strong_threshold=strong, gate=gate, temperature=2.0)
    )
    assert len(found) == FOUR_FULL_BATCHES.epochs
    for epoch, metrics in enumerate(found, 1):
        for bank, threshold in (("weak", weak), ("strong", strong)):
            expected = (confidence(workbench, bank, epoch) >= threshold).float().mean().item()
            assert metrics[f"train/kept_{bank}"] == pytest.approx(expected, rel=1e-6)
    assert len({metrics["train/kept_weak"] for metrics in found}) > 1  # epochs see other views
