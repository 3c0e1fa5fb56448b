from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from trainables.errors import StillhouseError
from trainables.evaluation import profiling
from trainables.evaluation.profiling import (
    LARGE_MIN_FORWARDS,
    LARGE_WARM_UP,
    MAX_FORWARDS,
    MIN_FORWARDS,
    WARM_UP_FORWARDS,
    profile_student,
)
from trainables.models.weights import save_weights


class Watched(nn.Module):
    """A linear network that notes how it was called, and may take its time."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * 3 * 3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.seconds = seconds
        self.calls: list[tuple[tuple[int, ...], bool, int]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.calls.append((tuple(images.shape), self.training, torch.get_num_threads()))
        time.sleep(self.seconds)
        logits: Tensor = self.norm(self.linear(images.flatten(1)))
        return logits


def test_parameters_and_the_size_of_the_written_file_are_reported(tmp_path: Path) -> None:
    model = Watched()
    save_weights(model, tmp_path / "student.safetensors", {})
    figures = profile_student(model, input_shape=(2, 3, 3))
    assert figures.params == 18 * 4 + 4 + 4 + 4  # statistics of batch norm are no parameters
    assert figures.size_bytes == (tmp_path / "student.safetensors").stat().st_size


def test_latencies_are_those_of_one_image_and_of_64_on_one_thread_in_evaluation_mode() -> None:
    model = Watched().train()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        profile_student(model, input_shape=(2, 3, 3))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert set(model.calls) == {((1, 2, 3, 3), False, 1), ((64, 2, 3, 3), False, 1)}
    one = [shape for shape, *_ in model.calls if shape[0] == 1]
    assert WARM_UP_FORWARDS + MIN_FORWARDS <= len(one) <= WARM_UP_FORWARDS + MAX_FORWARDS
    assert len(model.calls) - len(one) >= LARGE_WARM_UP + LARGE_MIN_FORWARDS
    assert model.training


def test_a_search_that_ranks_by_the_latency_of_one_image_does_not_wait_for_more() -> None:
    model = Watched()
    figures = profile_student(model, input_shape=(2, 3, 3), with_batch=False)
    assert {shape[0] for shape, *_ in model.calls} == {1}
    assert (figures.latency_64_ms, figures.latency_64_p95_ms) == (None, None)


def test_a_batch_that_does_not_fit_a_gpu_leaves_its_figure_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(profiling, "time_large_batch", full)
    figures = profile_student(Watched(), input_shape=(2, 3, 3))
    assert figures.latency_64_ms is None
    assert figures.latency_ms > 0


def test_latency_is_in_milliseconds_and_its_tail_is_not_below_the_median() -> None:
    figures = profile_student(Watched(seconds=0.004), input_shape=(2, 3, 3))
    assert 4.0 <= figures.latency_ms < 400.0
    assert figures.latency_p95_ms >= figures.latency_ms
    assert figures.latency_device
    assert figures.latency_threads == 1
    assert figures.latency_64_ms is not None
    assert figures.latency_64_p95_ms is not None
    assert 4.0 <= figures.latency_64_ms <= figures.latency_64_p95_ms


def test_an_input_that_does_not_fit_is_named() -> None:
    with pytest.raises(StillhouseError, match=r"cannot take an input of shape \(1, 3, 3\)"):
        profile_student(Watched(), input_shape=(1, 3, 3))
