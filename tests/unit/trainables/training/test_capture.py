"""The seam behind which steps are recorded, and what stands for a CUDA graph in tests."""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.unit.trainables.training.replayed_steps import NotReplayable, Replays
from trainables.training.capture import recorders
from trainables.training.capture.recorders import CudaGraphs, DrawsRandomNumbers, Plain, recorder_for, undone

CPU = torch.device("cpu")


def test_on_a_cpu_every_step_is_called() -> None:
    recorder = recorder_for(CPU)
    assert isinstance(recorder, Plain)
    assert not recorder.holds
    assert recorder.record(lambda: None, list) is None


def test_what_a_trial_run_changes_is_brought_back_and_what_it_makes_begins_as_zeros() -> None:
    weight, made = nn.Parameter(torch.ones(3)), list[Tensor]()
    with undone(lambda: [weight, *made], CPU), torch.no_grad():
        weight.mul_(2)
        made.append(torch.full((2,), 5.0))
    assert weight.tolist() == [1, 1, 1]
    assert made[0].tolist() == [0, 0]


def test_what_a_trial_run_changes_is_brought_back_when_it_fails() -> None:
    value = torch.ones(3)
    with pytest.raises(ValueError, match="no"), undone(lambda: [value], CPU):
        value.zero_()
        raise ValueError("no")
    assert value.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "draw",
    [lambda: torch.rand(1), lambda: np.random.rand(), random.random],
    ids=["torch", "numpy", "python"],
)
def test_a_step_that_draws_random_numbers_is_refused_and_draws_them_again(
    draw: Callable[[], object],
) -> None:
    with pytest.raises(DrawsRandomNumbers), undone(list, CPU):
        first = draw()
    assert draw() == first


class _Failing:
    """Stands for what only a GPU has; capturing raises the errors that it is given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *errors: RuntimeError) -> None:
        self.tried, self._errors = 0, list(errors)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
        monkeypatch.setattr(torch.cuda, "Stream", lambda _: None)
        monkeypatch.setattr(recorders, "_beside", lambda _: contextlib.nullcontext())
        monkeypatch.setattr(recorders, "_refusing_to_wait", contextlib.nullcontext)
        monkeypatch.setattr(recorders, "_graph_of", self._graph_of)

    def _graph_of(self, *_: object) -> object:
        self.tried += 1
        raise self._errors.pop(0)


def test_a_step_that_cannot_be_a_graph_is_called_each_time_and_the_log_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failing, value = _Failing(monkeypatch, RuntimeError("it waits for the device")), torch.zeros(1)
    recorder = CudaGraphs(CPU)

    def step() -> None:
        value.add_(1)

    with caplog.at_level(logging.WARNING):
        found = [recorder.record(step, lambda: [value]) for _ in "12"]
    assert found == [None, None]
    assert failing.tried == 1
    assert [record.getMessage() for record in caplog.records] == [
        "steps are started kernel by kernel, and not as one CUDA graph: it waits for the device"
    ]
    assert value.tolist() == [0]


def test_a_graph_for_which_there_was_no_memory_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = _Failing(monkeypatch, torch.OutOfMemoryError("full"), torch.OutOfMemoryError("full"))
    recorder = CudaGraphs(CPU)
    assert [recorder.record(lambda: None, list) for _ in "12"] == [None, None]
    assert failing.tried == 2


def test_the_double_replays_what_stays_in_its_tensors() -> None:
    rate, weight = torch.tensor([0.5]), torch.ones(2)
    replay = Replays().record(lambda: _descend(weight, rate), lambda: [weight])
    assert weight.tolist() == [1, 1]
    assert replay is not None
    replay()
    rate.fill_(0.25)
    replay()
    assert weight.tolist() == [0.25, 0.25]


def _descend(weight: Tensor, rate: Tensor) -> None:
    weight.sub_(rate)


def test_the_double_finds_a_number_that_a_graph_would_keep() -> None:
    numbers, weight = [0.5], torch.ones(2)

    def step() -> None:
        weight.mul_(numbers[0])

    replay = Replays().record(step, lambda: [weight])
    assert replay is not None
    numbers[0] = 0.25
    with pytest.raises(NotReplayable, match=r"0\.5.*0\.25"):
        replay()


def test_the_double_finds_a_tensor_in_the_place_of_the_one_that_was_recorded() -> None:
    inputs, weight = [torch.ones(2)], torch.ones(2)

    def step() -> None:
        weight.add_(inputs[0])

    replay = Replays().record(step, lambda: [weight])
    assert replay is not None
    inputs[0] = torch.zeros(2)
    with pytest.raises(NotReplayable, match="operation 0"):
        replay()


@pytest.mark.parametrize(
    "step",
    [
        lambda: torch.ones(2).sum().item(),
        lambda: torch.tensor([1.0, 2.0]),
        lambda: torch.ones(2).nonzero(),
        lambda: torch.ones(2)[torch.ones(2) > 0],
    ],
    ids=["item", "tensor", "nonzero", "mask"],
)
def test_the_double_finds_what_waits_for_the_device(step: Callable[[], object]) -> None:
    def called() -> None:
        step()

    with pytest.raises(NotReplayable, match="waits for the device, or copies"):
        Replays().record(called, list)
