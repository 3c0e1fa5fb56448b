"""How fast a large search comes into an MLflow server, and what the process that sends it holds in memory."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.config.tracking_uri import default_tracking_uri
from orchestrator.records.ledger import Ledger
from tests.benchmarks.figures import Figure
from tests.benchmarks.records.made_ledgers import METRICS, recorder_of, write_ledger
from tests.benchmarks.slot_searches import scratch_folder
from tests.benchmarks.surroundings import surroundings
from tests.integration.served import free_port, mlflow_server, wait_until_it_answers

TRIALS: Final = 1000
EPOCHS: Final = 50
_PATIENCE_S: Final = 4 * 3600.0
_RESET_PEAK: Final = "5"


@dataclass(frozen=True)
class _Recorded:
    """One recording of a whole ledger."""

    seconds: float
    before_bytes: int
    """Resident memory with MLflow imported, before the ledger was opened."""
    ledger_bytes: int
    """Resident memory with the ledger open, before the recorder started."""
    peak_bytes: int
    """The most while it was recorded."""


def record_runs_per_s(trials: int = TRIALS, epochs: int = EPOCHS) -> Figure:
    """Students' runs a second, from the recorder's start until the server has everything."""
    found = _recorded(trials, epochs)
    points = trials * epochs * len(METRICS)
    how = (
        f"{_what(trials, epochs)}: {found.seconds:.0f} s, {points / found.seconds:,.0f} metric values a "
        f"second; {surroundings('mlflow')}"
    )
    return Figure(trials / found.seconds, "1/s", how)


def record_memory_mb(trials: int = TRIALS, epochs: int = EPOCHS) -> Figure:
    """The largest resident memory of the process that records."""
    found = _recorded(trials, epochs)
    before, ledger, peak = (each / 1e6 for each in (found.before_bytes, found.ledger_bytes, found.peak_bytes))
    how = (
        f"largest resident memory of the recording process, of which {before:.0f} MB are there before the "
        f"ledger is opened (Python, MLflow, torch), {ledger - before:.0f} MB come with the open ledger and "
        f"{peak - ledger:.0f} MB with the recording; {_what(trials, epochs)}; {surroundings('mlflow')}"
    )
    return Figure(peak, "MB", how)


@functools.cache
def _recorded(trials: int, epochs: int) -> _Recorded:
    """Once for both figures: it takes minutes."""
    with scratch_folder() as folder, _served(folder) as uri:
        out = folder / "out"
        out.mkdir()
        write_ledger(out, trials=trials, epochs=epochs).close()
        before = _memory_bytes("VmRSS")
        ledger = Ledger(out)
        opened = _memory_bytes("VmRSS")
        _forget_peak()
        began = time.perf_counter()
        recorder = recorder_of(ledger, uri, out)
        recorder.start()
        left = recorder.close("FINISHED", timeout_s=_PATIENCE_S)
        seconds = time.perf_counter() - began
        peak = _memory_bytes("VmHWM")
        ledger.close()
        if left or left.refused:
            raise RuntimeError(f"not everything came to the server, {left.refused} writes refused: {left}")
    return _Recorded(seconds, before, opened, peak)


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    port = free_port()
    with mlflow_server(folder, default_tracking_uri(folder), port):
        wait_until_it_answers(port)
        yield f"http://127.0.0.1:{port}"


def _what(trials: int, epochs: int) -> str:
    return (
        f"the ledger of {trials:,} trials of {epochs} epochs of {len(METRICS)} metrics, recorded over HTTP "
        "into an empty MLflow server of one worker with SQLite on this machine"
    )


def _forget_peak() -> None:
    """Have the kernel count the largest resident memory anew."""
    Path("/proc/self/clear_refs").write_text(_RESET_PEAK, encoding="ascii")


def _memory_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}; this measurement needs Linux")
