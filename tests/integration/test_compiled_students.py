"""`training.compile` with PyTorch's real compiler: the same student, compiled once for several trials."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from trainables.config import (
    CeConfig,
    DataConfig,
    DataName,
    ModelConfig,
    ModelName,
    Role,
    TrainingConfig,
    TrialSpec,
    ViewsConfig,
    WorkbenchSpec,
)
from trainables.slots.compiled_students import COMPILERS, find_compiler
from trainables.slots.warm_state import WarmState
from trainables.training.loop import train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_compiler() is None, reason=f"no C++ compiler here: none of CXX, {', '.join(COMPILERS)}"
    ),
]


def trained(warm: WarmState, spec: WorkbenchSpec, *, compile_it: bool, seed: int) -> dict[str, torch.Tensor]:
    """The weights after two epochs, under the names that a checkpoint gets."""
    trial = TrialSpec(
        trial_id="ce-1",
        role=Role.SEARCH,
        objective=CeConfig(),
        student=ModelConfig(name=ModelName.CONVNET, width=2, resolution=10),
        training=TrainingConfig(epochs=2, batch_size=20, lr=0.01, compile=compile_it),
        seed=seed,
    )
    course = warm.course(trial, spec)
    train(course, warm.workbench(spec), on_epoch=lambda *_: None)
    return {name: value.clone() for name, value in course.model.state_dict().items()}


def test_a_compiled_student_ends_as_a_plain_one_and_compiles_once(tmp_path: Path) -> None:
    spec = WorkbenchSpec(
        data=DataConfig(name=DataName.DIGITS, train_limit=100),
        views=ViewsConfig(),
        view_seed=1,
        cache_uri=None,
        cache_manifest=None,
        checkpoints=str(tmp_path),
    )
    warm = WarmState(torch.device("cpu"))
    plain = {seed: trained(warm, spec, compile_it=False, seed=seed) for seed in (1, 2)}
    counters.clear()
    compiled = {1: trained(warm, spec, compile_it=True, seed=1)}
    graphs = counters["stats"]["unique_graphs"]
    compiled[2] = trained(warm, spec, compile_it=True, seed=2)
    again = trained(warm, spec, compile_it=True, seed=1)
    assert graphs == counters["stats"]["unique_graphs"] == 1
    for seed, weights in compiled.items():
        assert list(weights) == list(plain[seed])
        for name, value in weights.items():
            torch.testing.assert_close(value, plain[seed][name], rtol=1e-3, atol=1e-4)
    assert all(torch.equal(again[name], value) for name, value in compiled[1].items())
