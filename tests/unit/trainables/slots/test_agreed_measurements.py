"""What one slot measured counts for all, and is measured without a workbench."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from tests.unit.trainables.training.small_courses import CPU, separable_data, small_student
from trainables.config import ModelConfig, ModelName
from trainables.slots import warm_state
from trainables.slots.agreed_measurements import AgreedMeasurements

WIDE, NARROW = (ModelConfig(name=ModelName.MLP, width=width) for width in (8, 4))


class Board:
    """What slots agreed on, and how often a network was built to find it."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.built = 0

    def agree(self, key: str, find: Callable[[], str]) -> str:
        if key not in self.values:
            self.values[key] = find()
        return self.values[key]

    def build(self) -> nn.Module:
        self.built += 1
        return small_student()


def test_a_latency_is_measured_once_for_an_architecture_and_counts_for_all_slots() -> None:
    board, data = Board(), separable_data()
    one, other = (AgreedMeasurements(CPU, board.agree) for _ in range(2))
    found = {slot.latency_ms(WIDE, board.build, data) for slot in (one, one, other)}
    assert len(found) == board.built == 1
    assert found.pop() > 0
    one.latency_ms(NARROW, board.build, data)
    assert board.built == 2
    assert all(key.startswith("latency_ms/") for key in board.values)


def test_what_was_agreed_on_for_other_code_does_not_count() -> None:
    board, data = Board(), separable_data()
    slot = AgreedMeasurements(CPU, board.agree)
    for code in (None, "a" * 64, "b" * 64):
        slot.latency_ms(WIDE, board.build, data, code)
    assert board.built == len(board.values) == 3


def test_a_measurement_leaves_the_generator_of_training_alone() -> None:
    before = torch.get_rng_state()
    AgreedMeasurements(CPU).latency_ms(WIDE, Board().build, separable_data())
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_kept_warm_knows_nothing_of_how_it_is_measured() -> None:
    tree = ast.parse(Path(str(warm_state.__file__)).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not imported & {"trainables.training.precision", "trainables.evaluation.profiling"}
