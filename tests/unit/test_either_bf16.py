"""Tests that ask whether the processor has bf16 run with both answers; the others cannot ask."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
ASKING = """
import pytest, torch
from trainables.training.precision import DeviceKind, device_kind

def test_both(either_bf16):
    assert (device_kind(torch.device("cpu")) is DeviceKind.CPU_BF16) is either_bf16

def test_unmarked():
    device_kind(torch.device("cpu"))

@pytest.mark.usefixtures("either_bf16")
def test_silent():
    pass
"""


def outcomes(folder: Path, *options: str) -> str:
    (folder / "test_asking.py").write_text(ASKING)
    told = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-rpfE", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return told.stdout


def test_a_test_that_asks_runs_with_both_answers_and_must_say_so(tmp_path: Path) -> None:
    told = outcomes(tmp_path)
    for name in ("bf16 fast", "bf16 absent"):
        assert f"PASSED test_asking.py::test_both[{name}]" in told
    assert "FAILED test_asking.py::test_unmarked - Failed: asks whether the processor has bf16" in told
    assert "ERROR test_asking.py::test_silent[bf16 fast] - AssertionError: nobody asked" in told


def test_one_answer_can_be_chosen(tmp_path: Path) -> None:
    told = outcomes(tmp_path, "--bf16=no", "-k", "both")
    assert "PASSED test_asking.py::test_both[bf16 absent]" in told
    assert "1 passed" in told
