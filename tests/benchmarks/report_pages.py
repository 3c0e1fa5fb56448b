"""How large the report of 1,000 trials is, how long it takes to write it, and to open it in a browser."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

from orchestrator.reports.html_report import report_html
from tests.benchmarks.figures import Bound, Figure
from tests.benchmarks.surroundings import surroundings
from tests.browser import open_browser, opened
from tests.synthetic_answers import SyntheticAnswers
from tests.synthetic_run import SyntheticRun

TRIALS: Final = 1000
EPOCHS: Final = 30
OPEN: Final = Bound(2000)
BYTES: Final = Bound(2_000_000)
CPU: Final = Bound(5)
ROUNDS: Final = 7
# Two frames after it was laid out, all of it has been painted once.
PAINTED: Final = (
    "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))"
)
ANSWERS: Final = SyntheticAnswers(images=2000, classes=100, side=96)
RUN: Final = SyntheticRun(trials=TRIALS, epochs=EPOCHS, slots=16, seeds=5, finalists=5, answers=ANSWERS)


def report_open_ms_1000(rounds: int = ROUNDS) -> Figure:
    """Time from the address to the painted page, in headless Chromium."""
    with tempfile.TemporaryDirectory() as folder, open_browser() as browser:
        file = _written(Path(folder))
        times_ms = []
        for _ in range(rounds):
            began = time.perf_counter()
            with opened(browser, file) as page:
                page.evaluate(PAINTED)
                times_ms.append(1000 * (time.perf_counter() - began))
        how = (
            f"median of {rounds} openings of the report of {_size()} ({file.stat().st_size / 1e6:.2f} MB) "
            f"from a file, each in a fresh context of one headless Chromium {browser.version} at 1280 "
            f"pixels, from the request to the second frame after it was loaded; "
            f"{surroundings('matplotlib', 'playwright')}"
        )
    return Figure(statistics.median(times_ms), "ms", how, OPEN)


def report_bytes_1000() -> Figure:
    """Bytes of the page."""
    with tempfile.TemporaryDirectory() as folder:
        size = _written(Path(folder)).stat().st_size
    how = f"the report of {_size()}, one file with all that it shows; {surroundings('matplotlib')}"
    return Figure(float(size), "B", how, BYTES)


def report_cpu_s_1000() -> Figure:
    """Processor time of writing the page, the libraries that it needs imported then."""
    with tempfile.TemporaryDirectory() as folder:
        facts = RUN.facts(Path(folder))
        began = time.process_time()
        report_html(facts)
        spent_s = time.process_time() - began
    how = (
        f"process time, of all its threads, from the facts of {_size()} to the page as text, the first page "
        f"of its process; {surroundings('matplotlib', 'optuna', 'scikit-learn')}"
    )
    return Figure(spent_s, "s", how, CPU)


def _written(folder: Path) -> Path:
    file = folder / "report.html"
    file.write_text(report_html(RUN.facts(folder)), encoding="utf-8")
    return file


def _size() -> str:
    return (
        f"{RUN.trials:,} trials of {RUN.epochs} epochs and two objectives, {RUN.finalists} finalists and a "
        f"control with {RUN.seeds} seeds, answers to {ANSWERS.images:,} images of {ANSWERS.classes} classes, "
        f"and pictures of noise, {ANSWERS.side} pixels wide"
    )
