"""`make gpu` as a whole, rehearsed on the CPU, in processes that have no Ray and nothing of the driver's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.registry import GPU_BENCHMARKS
from tests.unit.no_ray import environment_without

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def test_every_test_and_benchmark_of_a_gpu_runs_on_the_cpu_without_ray(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.gpu", "--rehearse", "--out", str(out)],
        cwd=ROOT,
        env=environment_without(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(out.read_text(encoding="utf-8"))
    assert list(report["figures"]) == list(GPU_BENCHMARKS)
    assert report["machine"]["rehearsal"] is True
    assert report["tests"]["failed"] == 0
    assert report["tests"]["passed"] > 100
