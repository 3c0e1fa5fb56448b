"""The README's teachers that are not one network of PyTorch: an ONNX file, and that file with a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from orchestrator.records.summary import read_summary
from tests.integration.test_from_readme import ONE_SLOT, README, example_block
from tests.unit.trainables.models.onnx_files import exported

pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.slow]

MAX_LINES = 15
RUN_S = 900.0


def command(folder: Path, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "my_task.py").write_text(example_block("python", "def dataset"))
    text = example_block("yaml", f"name: {name}")
    assert text.count("\n") < MAX_LINES
    (folder / f"{name}.yaml").write_text(text + ONE_SLOT)
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", words[0], f"{name}.yaml", *words[1:]],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(README.parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def summary_of(folder: Path, name: str) -> dict[str, Any]:
    return read_summary(folder / "out" / name / "summary.json").plain()


def brightest_quarter(path: Path) -> Path:
    """Says which quarter of an image is brighter, as probabilities."""
    linear = nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        linear.weight.copy_(10 * torch.eye(4))
    network = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), linear, nn.Softmax(dim=1))
    return exported(network, path, torch.zeros(2, 1, 8, 8))


def test_an_onnx_file_teaches(tmp_path: Path) -> None:
    brightest_quarter(tmp_path / "teacher.onnx")
    looked = command(tmp_path, "my_onnx", "validate", "--deep")
    assert "its Softmax is cut off" in looked.stdout
    assert re.search(r"teacher: right on [789]\d", looked.stdout), looked.stdout


def test_several_teachers_teach_together(tmp_path: Path) -> None:
    brightest_quarter(tmp_path / "teacher.onnx")
    done = command(tmp_path, "my_teachers", "run")
    assert "teachers together" in done.stdout
    assert "64 answers proved against the live teacher" in done.stdout
    teacher = summary_of(tmp_path, "my_teachers")["teacher"]
    first, second = teacher["members"]
    assert (first["share"], second["share"]) == pytest.approx((2 / 3, 1 / 3))
    assert teacher["params"] == first["params"] + second["params"]
    for figures in (first, second, teacher):
        assert figures["selection_accuracy"] > 0.5
        assert figures["test_accuracy"] > 0.5
        assert figures["latency_ms"] > 0
    again = command(tmp_path, "my_teachers", "run")
    assert "teacher 1 (share 0.67)" in again.stdout
