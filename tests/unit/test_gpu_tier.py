"""`make gpu` itself: what it needs, what it says, and when it stops; the GPU is not needed for that."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.benchmarks.docs import GPU_BEGIN, GPU_END, PAGE, gpu_table, with_table
from tests.benchmarks.figures import Bound, Figure
from tests.benchmarks.gpu import __main__ as entry
from tests.benchmarks.gpu import tier
from tests.benchmarks.gpu.tier import END_S, LAST_START_S, Report, run_benchmarks
from tests.benchmarks.gpu.worker import BenchmarkFailed, GpuWorker
from tests.benchmarks.registry import BENCHMARKS, GPU_BENCHMARKS
from tests.unit.no_ray import environment_without

ROOT = Path(__file__).parents[2]
MACHINE = {"device": "a GPU", "memory_gb": 80.0} | dict.fromkeys(
    ("torch", "cuda", "cudnn", "driver", "python", "commit"), "1"
)
NAMES = list(GPU_BENCHMARKS)[:3]


def _figure(value: float = 2.0, bound: Bound | None = None) -> Figure:
    return Figure(value, "x", "counted by hand", bound)


def test_tests_and_benchmarks_of_a_gpu_import_neither_ray_nor_what_the_driver_needs(tmp_path: Path) -> None:
    tests = [f"tests.gpu.{path.stem}" for path in sorted((ROOT / "tests" / "gpu").glob("*.py"))]
    benchmarks = sorted({path.partition(":")[0] for path in GPU_BENCHMARKS.values()})
    modules = [*tests, *benchmarks, "tests.conftest", "tests.benchmarks.gpu.tier"]
    code = f"import importlib\nfor name in {modules}: importlib.import_module(name)\nprint('done')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment_without(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(modules) > 15


def test_what_is_kept_away_cannot_be_imported(tmp_path: Path) -> None:
    """Without this, the test above could pass in an environment that keeps nothing away."""
    command, env = [sys.executable, "-c", "import ray"], environment_without(tmp_path)
    done = subprocess.run(command, env=env, capture_output=True, check=False)
    assert b"kept away" in done.stderr


def test_all_that_is_marked_gpu_lies_in_its_folder_and_all_there_is_marked() -> None:
    others = set((ROOT / "tests").rglob("*.py")) - {Path(__file__)}
    marked = {path for path in others if "mark.gpu" in path.read_text(encoding="utf-8")}
    assert marked == set((ROOT / "tests" / "gpu").glob("test_*.py"))


@pytest.mark.parametrize("path", GPU_BENCHMARKS.values())
def test_every_gpu_benchmark_is_a_function_that_gives_a_figure(path: str) -> None:
    module, _, function = path.split()[0].partition(":")
    source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")
    defined = [n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef) and n.name == function]
    assert [ast.unparse(node.returns) for node in defined if node.returns] == ["Figure"]
    assert [len(node.args.args) for node in defined] == [len(path.split()) - 1]


def test_a_name_is_that_of_a_cpu_or_of_a_gpu() -> None:
    assert not set(BENCHMARKS) & set(GPU_BENCHMARKS)
    assert all(name.startswith("gpu_") for name in GPU_BENCHMARKS)


def test_what_is_missing_is_named_with_the_next_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.missing(lambda name: None if name in ("pydantic", "torch") else name) == [
        "torch",
        "pydantic",
    ]
    monkeypatch.setattr(entry, "missing", lambda: ["pydantic"])
    assert entry.main([]) == 1
    said = capsys.readouterr().err
    assert "needs pydantic, not installed for" in said
    assert "make gpu GPU_PYTHON=python3" in said


def test_without_a_gpu_one_line_says_so_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert tier.main(["--out", str(tmp_path / "gpu.json")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "no GPU here that PyTorch can use: nothing was run, and no file was written"
    ]
    assert list(tmp_path.iterdir()) == []


def measured(
    report: Report, measure: Callable[[str, float], Figure], seconds: list[float]
) -> list[dict[str, Any]]:
    """What was kept after each benchmark; the clock says these seconds, one each time that it is asked."""
    kept: list[dict[str, Any]] = []
    run_benchmarks(
        NAMES,
        report,
        measure=measure,
        keep=lambda: kept.append(json.loads(json.dumps(report.plain()))),
        clock=lambda: seconds.pop(0) if len(seconds) > 1 else seconds[0],
    )
    return kept


def test_each_figure_is_printed_with_the_device_and_kept_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(MACHINE)
    kept = measured(report, lambda *_: _figure(1234.5), [0.0])
    assert [list(entry["figures"]) for entry in kept] == [NAMES[:1], NAMES[:2], NAMES]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    assert all("1,234.500 x" in line and line.endswith("a GPU") for line in lines)
    assert report.ok


def test_no_benchmark_is_started_late_and_those_left_out_are_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = Report(MACHINE)
    measured(report, lambda *_: _figure(), [0.0, 0.0, LAST_START_S + 1])
    assert list(report.figures) == NAMES[:1]
    assert report.left_out == NAMES[1:]
    assert f"no time was left for {', '.join(NAMES[1:])}" in capsys.readouterr().out
    assert report.ok


def test_a_benchmark_that_starts_last_has_the_time_that_is_left() -> None:
    limits: list[float] = []

    def measure(_path: str, timeout_s: float) -> Figure:
        limits.append(timeout_s)
        return _figure()

    measured(Report(MACHINE), measure, [LAST_START_S])
    assert limits == [END_S - LAST_START_S] * len(NAMES)
    assert END_S < 480


def test_a_benchmark_that_fails_is_told_and_the_others_are_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = Report(MACHINE)

    def measure(path: str, _timeout_s: float) -> Figure:
        if path == GPU_BENCHMARKS[NAMES[0]]:
            raise BenchmarkFailed("its process ended with status 1")
        return _figure()

    measured(report, measure, [0.0])
    assert report.failed == {NAMES[0]: "its process ended with status 1"}
    assert list(report.figures) == NAMES[1:]
    assert not report.ok
    assert "FAILED: its process ended with status 1" in capsys.readouterr().out


def test_a_broken_bound_and_failed_tests_are_no_success() -> None:
    assert not Report(MACHINE, figures={"a": _figure(2.0, Bound(1)).plain()}).ok
    assert not Report(MACHINE, tests={"failed": 1}).ok
    assert not Report(MACHINE, tests={"failed": 0, "ended": True}).ok


def test_a_benchmark_that_dies_or_hangs_is_replaced() -> None:
    with GpuWorker() as worker:
        with pytest.raises(BenchmarkFailed, match="its process ended with status -6"):
            worker.measure("os:abort", 60)
        with pytest.raises(BenchmarkFailed, match=r"was not done after \d+ s"):
            worker.measure("signal:pause", 0.1)


@pytest.mark.parametrize(
    ("suite", "counts"),
    [
        ('tests="9" failures="1" errors="1" skipped="2"', {"passed": 5, "failed": 2, "skipped": 2}),
        ('tests="3" failures="0" errors="0" skipped="0"', {"passed": 3, "failed": 0, "skipped": 0}),
        ('tests="3" failures="0" errors="0" skipped="3"', {"passed": 0, "failed": 1, "skipped": 3}),
        ('tests="0" failures="0" errors="0" skipped="0"', {"passed": 0, "failed": 1, "skipped": 0}),
    ],
)
def test_tests_are_counted_and_none_at_all_is_a_failure(
    tmp_path: Path, suite: str, counts: dict[str, int]
) -> None:
    path = tmp_path / "tests.xml"
    path.write_text(f"<testsuites><testsuite {suite}/></testsuites>")
    assert tier.counts_of(path) == counts


def test_the_page_tells_the_hardware_and_what_was_not_measured() -> None:
    report = Report(MACHINE, tests={"passed": 5, "failed": 0, "skipped": 1, "seconds": 3, "ended": False})
    report.figures = {"gpu_a": _figure(12345.6).plain()}
    report.failed, report.left_out = {"gpu_b": "why"}, ["gpu_c"]
    written = gpu_table(report.plain())
    assert written.startswith("On a GPU (80.0 GB), torch 1, cuda 1")
    assert "Tests marked `gpu`: 5 passed, 0 failed, 1 skipped." in written
    assert "Not measured: `gpu_b`, `gpu_c`." in written
    assert "| `gpu_a` | 12,346 x | none |  |" in written
    page = with_table((ROOT / PAGE).read_text(encoding="utf-8"), written, marks=(GPU_BEGIN, GPU_END))
    assert written in page
