"""How long a person waits from the link of `stillhouse ui` to the row of the champion, in a real browser."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Final

from mlflow import MlflowClient
from playwright.sync_api import Browser

from orchestrator.config.tracking_uri import default_tracking_uri
from orchestrator.records.ledger import Ledger
from orchestrator.tracking.views import ranked_runs_url
from tests.benchmarks.figures import Bound, Figure
from tests.benchmarks.records.made_ledgers import recorder_of, write_ledger
from tests.benchmarks.records.multiplied_store import multiply
from tests.benchmarks.slot_searches import scratch_folder
from tests.benchmarks.surroundings import surroundings
from tests.browser import open_browser
from tests.integration.served import free_port, mlflow_server, wait_until_it_answers

BOUND: Final = Bound(3000)
TEMPLATE: Final = 100
"""Trials that are recorded; larger stores hold copies of them."""
EPOCHS: Final = 10
ROUNDS: Final = 7
_PATIENCE_S: Final = 1800.0
_PATIENCE_MS: Final = 300_000


def best_row_ms(trials: str, rounds: int = ROUNDS) -> Figure:
    """Time from the link to the champion's row on the screen, with so many trials in the store."""
    count = int(trials)
    with scratch_folder() as folder, open_browser() as browser:
        experiment, champion = _filled(folder, count)
        port = free_port()
        with mlflow_server(folder, default_tracking_uri(folder), port):
            wait_until_it_answers(port)
            link = ranked_runs_url(f"http://127.0.0.1:{port}", experiment)
            first_ms = _opening_ms(browser, link, champion)
            times_ms = [_opening_ms(browser, link, champion) for _ in range(rounds)]
        how = (
            f"median of {rounds} openings ({min(times_ms):.0f} to {max(times_ms):.0f} ms; the server's first "
            f"one, {first_ms:.0f} ms, is not counted) of the link that `stillhouse ui` prints, each in a "
            f"fresh context without a cache of one headless Chromium {browser.version} at 1600 pixels, from "
            f"the request until the champion's row is visible; {count:,} trials of {EPOCHS} epochs in one "
            f"experiment in SQLite, behind the one-worker server that `stillhouse ui` starts; "
            f"{surroundings('mlflow', 'playwright')}"
        )
    return Figure(statistics.median(times_ms), "ms", how, BOUND if count > TEMPLATE else None)


def _filled(folder: Path, trials: int) -> tuple[str, str]:
    """A store with so many trials of one experiment; the experiment's id and the name of the best run."""
    recorded = min(trials, TEMPLATE)
    if trials % recorded:
        raise ValueError(f"{trials} trials are no multiple of {recorded}, which are copied")
    out = folder / "out"
    out.mkdir()
    write_ledger(out, trials=recorded, epochs=EPOCHS).close()
    ledger, uri = Ledger(out), default_tracking_uri(folder)
    recorder = recorder_of(ledger, uri, out)
    recorder.start()
    for rank, record in enumerate(ledger.trials(), start=1):
        figures = {"rank": float(rank), "pareto": float(1 + rank % 5), "within_budget": float(rank % 2)}
        figures |= {"params": 1e4 * rank, "latency_ms": 0.1 * rank, "size_bytes": 4e4 * rank}
        recorder.record_figures(record.trial, figures, champion=rank == 1 or None)
    best = ledger.trials()[0].trial
    left = recorder.close("FINISHED", timeout_s=_PATIENCE_S)
    if left or left.refused:
        raise RuntimeError(f"not everything came into the store: {left}")
    ledger.close()
    run = MlflowClient(uri, registry_uri=uri).get_run(str(recorder.run_id(best)))
    multiply(folder / "mlflow.db", copies=trials // recorded - 1, ranks=recorded)
    return recorder.experiment_id, str(run.info.run_name)


def _opening_ms(browser: Browser, link: str, name: str) -> float:
    context = browser.new_context(viewport={"width": 1600, "height": 900})
    context.set_default_timeout(_PATIENCE_MS)
    page = context.new_page()
    try:
        began = time.perf_counter()
        page.goto(link, wait_until="commit")
        page.get_by_text(name, exact=True).first.wait_for()
        return 1000 * (time.perf_counter() - began)
    finally:
        context.close()
