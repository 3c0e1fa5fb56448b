"""`make gpu`: the tests and benchmarks that need a GPU, within eight minutes; writes `out/gpu.json`."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch

from tests.benchmarks.figures import Figure, write_figures
from tests.benchmarks.gpu.worker import BenchmarkFailed, GpuWorker
from tests.benchmarks.registry import GPU_BENCHMARKS
from tests.benchmarks.surroundings import commit
from tests.gpu.tried import TRIED, tried_device
from trainables.evaluation.profiling import device_name

TESTS_S: Final = 170.0
"""After so long no further test is started."""
TEST_S: Final = 60.0
"""The longest that one test may take."""
LAST_START_S: Final = 420.0
"""When so long has passed no further benchmark is started."""
END_S: Final = 470.0
"""When so long has passed a benchmark that is running is ended."""
ONE_S: Final = 120.0
"""The longest that one benchmark may take."""
SLACK: Final = 10.0
"""How many times as long all that may take in a rehearsal, whose machine may be small and busy."""
ROOT: Final = Path(__file__).parents[3]

Measure = Callable[[str, float], Figure]
Clock = Callable[[], float]


@dataclass
class Report:
    """What `out/gpu.json` holds."""

    machine: Mapping[str, Any]
    tests: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether no test and no benchmark failed, and every bound holds."""
        kept = all(entry["ok"] for entry in self.figures.values())
        return kept and not self.failed and not self.tests.get("failed") and not self.tests.get("ended")

    def plain(self) -> dict[str, Any]:
        """Plain data for the file."""
        return dict(vars(self))


def machine(device: torch.device) -> dict[str, Any]:
    """Names and versions of all that figures depend on."""
    facts: dict[str, Any] = {
        "device": device_name(device),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "commit": commit(),
        "rehearsal": device.type != "cuda",
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "memory_gb": round(properties.total_memory / 1e9, 1),
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "driver": _driver(),
        }
    return facts


def _driver() -> str:
    if shutil.which("nvidia-smi") is None:
        return "unknown"
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
    return said[0] if said else "unknown"


def run_tests(slack: float) -> dict[str, Any]:
    """Run all that is marked `gpu`; counts by outcome, seconds, and whether the time ran out."""
    began, ended, limit_s = time.monotonic(), False, slack * TESTS_S
    with tempfile.TemporaryDirectory(prefix="gpu-tests-") as folder:
        found = Path(folder) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu"]
        command += [f"--session-timeout={limit_s:g}", f"--timeout={slack * TEST_S:g}"]
        command += [f"--junitxml={found}", "-p", "no:cacheprovider"]
        try:
            subprocess.run(command, cwd=ROOT, timeout=limit_s + slack * TEST_S, check=False)
        except subprocess.TimeoutExpired:
            ended = True
        ended = ended or time.monotonic() - began > limit_s
        counts = counts_of(found) if found.exists() else {"passed": 0, "failed": 1, "skipped": 0}
    return {**counts, "seconds": round(time.monotonic() - began, 1), "ended": ended}


def counts_of(path: Path) -> dict[str, int]:
    """How many tests passed, failed and were skipped, by a file that pytest wrote."""
    suites = ElementTree.parse(path).getroot().iter("testsuite")  # noqa: S314  # pytest wrote it just now
    totals = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    for suite in suites:
        for name in totals:
            totals[name] += int(suite.get(name, 0))
    failed = totals["failures"] + totals["errors"]
    passed = totals["tests"] - failed - totals["skipped"]
    # That no test ran is a failure too: it is what a wrong path looks like.
    return {"passed": passed, "failed": failed + (passed == 0), "skipped": totals["skipped"]}


def run_benchmarks(
    names: Sequence[str],
    report: Report,
    *,
    measure: Measure,
    keep: Callable[[], None],
    clock: Clock,
) -> None:
    """Measure one after the other while there is time, printing a line a figure; `keep` writes the file.

    `clock` gives the seconds since the whole began.
    """
    for place, name in enumerate(names):
        if clock() > LAST_START_S:
            report.left_out = list(names[place:])
            print(f"no time was left for {', '.join(report.left_out)}", flush=True)
            break
        try:
            figure = measure(GPU_BENCHMARKS[name], min(ONE_S, END_S - clock()))
        except BenchmarkFailed as error:
            report.failed[name] = str(error)
            print(f"{name:<42} FAILED: {error}", flush=True)
        else:
            report.figures[name] = figure.plain()
            print(line_of(name, figure, str(report.machine["device"])), flush=True)
        keep()


def line_of(name: str, figure: Figure, device: str) -> str:
    """Name, value, unit, verdict and device."""
    verdict = "" if figure.ok else "  BROKEN"
    return f"{name:<42} {figure.value:>13,.3f} {figure.unit:<9} {device}{verdict}"


def main(arguments: Sequence[str]) -> int:
    """The exit status: 1 when a test or a benchmark failed."""
    began, slack = time.monotonic(), 1.0
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu", description=__doc__)
    parser.add_argument("only", nargs="?", choices=list(GPU_BENCHMARKS), help="this alone, and no tests")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, to try tests and benchmarks")
    parser.add_argument("--out", type=Path, default=None, help="file of the figures")
    given = parser.parse_args(arguments)
    if given.rehearse:
        os.environ[TRIED], slack = "cpu", SLACK
    elif not torch.cuda.is_available():
        print("no GPU here that PyTorch can use: nothing was run, and no file was written")
        return 0
    report = Report(machine(tried_device()))
    path = given.out or Path("out/gpu-rehearsal.json" if given.rehearse else "out/gpu.json")
    print(", ".join(f"{name} {value}" for name, value in report.machine.items()), flush=True)
    if not given.only:
        report.tests = run_tests(slack)
        write_figures(path, report.plain())
    with GpuWorker() as worker:
        run_benchmarks(
            [given.only] if given.only else list(GPU_BENCHMARKS),
            report,
            measure=lambda path, timeout_s: worker.measure(path, slack * timeout_s),
            keep=lambda: write_figures(path, report.plain()),
            clock=lambda: (time.monotonic() - began) / slack,
        )
    write_figures(path, report.plain())
    print(
        f"{report.tests or 'no tests'}; {len(report.figures)} figures, {len(report.failed)} failed, "
        f"{len(report.left_out)} left out, in {time.monotonic() - began:.0f} s; {path}"
    )
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
