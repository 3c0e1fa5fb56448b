"""MLflow's record of a finished run is made again from the ledger, and withholds no results."""

from __future__ import annotations

import itertools
import json
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from orchestrator.records.events import GroupAdded
from orchestrator.records.ledger import Ledger
from orchestrator.tracking.store import prepare_mlflow
from tests.older_runs.unpacking import unpack_older_run

pytestmark = [pytest.mark.mlflow, pytest.mark.slow]

MODEL = "stillhouse-three_trials"
MOST_ASKED = 10
"""Requests to a server that refuses, five in fact; whoever tried again and again would send more."""
TELLS_IMPORTS = ("-X", "importtime")


def slow_imports(said: str) -> set[str]:
    """What takes seconds to import, of what an interpreter told of its imports."""
    imported = {
        line.rsplit("|", 1)[-1].strip() for line in said.splitlines() if line.startswith("import time:")
    }
    assert "orchestrator" in imported
    return imported & {"mlflow", "ray", "torch"}


class Kept:
    """A finished run in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.file = unpack_older_run(folder)
        self.out = folder / "out" / "three_trials"
        (self.out / "report.html").write_text("<p>of the run</p>")
        self.database = self.out / "mlflow.db"

    def run(
        self, *words: str, command: str = "run", options: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """`stillhouse run` or another command in a process of its own; `options` are the interpreter's."""
        return subprocess.run(
            [sys.executable, *options, "-m", "orchestrator", *command.split(), self.file.name, *words],
            cwd=self.file.parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            stdin=subprocess.DEVNULL,
        )

    def client(self) -> MlflowClient:
        prepare_mlflow()
        return MlflowClient(f"sqlite:///{self.database}")

    def runs(self) -> list[Run]:
        ids = [found.experiment_id for found in self.client().search_experiments()]
        return list(self.client().search_runs(ids, max_results=1000))

    def shown(self) -> dict[str, tuple[dict[str, float], dict[str, str]]]:
        """What MLflow shows of each student, and of the run itself: figures and parameters."""
        return {
            run.data.tags.get("trial_id", "parent"): (run.data.metrics, run.data.params)
            for run in self.runs()
        }


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def test_a_record_that_was_removed_is_there_again_with_files_and_model(kept: Kept) -> None:
    there, kept.database = kept.database, kept.database.rename(kept.out / "moved away.db")
    before = kept.shown()
    kept.database = there  # MLflow keeps a connection open for each address
    done = kept.run()
    assert done.returncode == 0, done.stderr
    assert f"{kept.database} is gone: MLflow's record is written from the ledger" in done.stdout
    assert "starting Ray" not in done.stdout
    after = kept.shown()
    groups = {event.group for event in Ledger(kept.out).events_of(GroupAdded)}
    assert groups  # of which an earlier version made no runs
    assert after.keys() == before.keys() | groups
    for name, (figures, params) in before.items():
        assert after[name][0].keys() >= figures.keys()
        assert {key: after[name][0][key] for key in figures if not key.startswith("seconds/")} == {
            key: value for key, value in figures.items() if not key.startswith("seconds/")
        }
        assert params.items() <= after[name][1].items()
    for run in kept.runs():
        points = [p for k in run.data.metrics for p in kept.client().get_metric_history(run.info.run_id, k)]
        curves = [point for point in points if point.step > 0]
        assert len({(point.key, point.step) for point in curves}) == len(curves)
    (parent,) = (run for run in kept.runs() if run.data.tags["kind"] == "experiment")
    names = {file.path for file in kept.client().list_artifacts(parent.info.run_id)}
    files = {"experiment.json", "experiment.yaml", "space.yaml", "report.html", "summary.json"}
    assert names == files
    assert kept.client().get_model_version_by_alias(MODEL, "champion").version
    summary = json.loads((kept.out / "summary.json").read_text())
    assert summary["mlflow"]["parent_run_id"] == parent.info.run_id
    assert summary["ledger"]["check"] == Ledger(kept.out).mark().check

    ledger = (kept.out / "ledger.jsonl").read_bytes()
    again = kept.run(options=TELLS_IMPORTS)
    assert not slow_imports(again.stderr)
    assert (again.returncode, "written from the ledger" in again.stdout) == (0, False)
    assert (kept.out / "ledger.jsonl").read_bytes() == ledger
    written = kept.run("--json", command="record sync")
    assert written.returncode == 0, written.stderr
    assert json.loads(written.stdout)["mlflow"]["lacks"] is None
    assert kept.shown().keys() == before.keys() | groups


def test_an_unfinished_run_is_recorded_as_far_as_it_came_also_into_an_empty_store(kept: Kept) -> None:
    lines = (kept.out / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    kinds = [json.loads(line)["kind"] for line in lines]
    killed_at = kinds.index("trial_ended") + 1
    assert kinds[:killed_at].count("trial_started") == 2
    (kept.out / "ledger.jsonl").write_bytes(b"".join(lines[:killed_at]))
    (kept.out / "summary.json").unlink()
    kept.database.unlink()
    looks = itertools.count()

    def synced() -> dict[str, tuple[str, dict[str, float], dict[str, str]]]:
        done = kept.run("--json", command="record sync")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert (told["status"], told["refused"]) == ("KILLED", 0)
        assert "the run is not finished and `stillhouse run` goes on with it" in done.stderr
        there, kept.database = kept.database, kept.out / f"looked at {next(looks)}.db"
        shutil.copyfile(there, kept.database)  # MLflow keeps a connection open for each address
        runs = kept.runs()
        kept.database = there
        assert told["parent_run_id"] in {run.info.run_id for run in runs}
        return {
            run.data.tags.get("trial_id", "parent"): (run.info.status, run.data.metrics, run.data.params)
            for run in runs
        }

    first = synced()
    assert [status for status, _, _ in first.values()].count("FINISHED") == 1
    assert {first[name][0] for name in ("parent", *first) if first[name][0] != "FINISHED"} == {"KILLED"}
    assert len(first) == 3  # the parent, the trial that ended, and the one that was in training
    assert synced() == first
    kept.database.unlink()
    assert synced() == first


def test_a_damaged_record_is_refused_before_anything_slow_and_the_results_are_shown(kept: Kept) -> None:
    kept.database.write_bytes(kept.database.read_bytes()[:400_000])
    for command in ("ui", "run"):
        done = kept.run(command=command, options=TELLS_IMPORTS)
        assert not slow_imports(done.stderr)
        (line,) = (said for said in done.stderr.splitlines() if not said.startswith("import time:"))
        assert done.returncode == 1
        assert f"MLflow's record {kept.database} is damaged (" in line
        assert "move it away and run the experiment again" in line
    assert "champion: finalist 1, kd" in done.stdout


def test_a_registry_that_refuses_withholds_no_results_and_is_asked_again(kept: Kept) -> None:
    kept.database.unlink()
    kept.client().search_experiments()  # makes the tables
    with closing(sqlite3.connect(kept.database)) as store, store:
        refuse = "BEFORE INSERT ON model_versions BEGIN SELECT RAISE(ABORT, 'the registry is closed'); END"
        store.execute(f"CREATE TRIGGER closed {refuse}")
    done = kept.run()
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    assert error.startswith(f"error: the results are in {kept.out}, and not all in MLflow: ")
    assert "Model Version creation error" in error
    assert "champion: finalist 1, kd" in done.stdout
    assert (
        "Model Version creation error"
        in json.loads((kept.out / "summary.json").read_text())["mlflow"]["lacks"]
    )
    with closing(sqlite3.connect(kept.database)) as store, store:
        store.execute("DROP TRIGGER closed")
    again = kept.run("--json")
    assert again.returncode == 0, again.stderr
    mlflow = json.loads(again.stdout)["mlflow"]
    assert (mlflow["registered_model"], mlflow["lacks"]) == (MODEL, None)
    champion = kept.client().get_model_version_by_alias(MODEL, "champion")
    assert str(champion.version) == mlflow["version"]


class _Refuses(BaseHTTPRequestHandler):
    """Knows nobody's password; counts who asked."""

    asked = 0

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        type(self).asked += 1
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b'{"error_code": "UNAUTHENTICATED", "message": "You are not authenticated."}'
        self.send_response(401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer


@contextmanager
def refusing_server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refuses) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_a_server_that_lets_nobody_in_withholds_no_results_and_is_not_waited_for(kept: Kept) -> None:
    (kept.out / "summary.json").unlink()
    asked_before = _Refuses.asked
    with refusing_server() as uri:
        kept.file.write_text(f"{kept.file.read_text()}\nrecord: {{tracking_uri: '{uri}'}}\n")
        done = kept.run("--json")
    assert 0 < _Refuses.asked - asked_before <= MOST_ASKED
    assert done.returncode == 1
    summary = json.loads(done.stdout)
    assert summary["champion"]["objective"] == "kd"
    assert "You are not authenticated" in summary["mlflow"]["lacks"]
    assert (summary["mlflow"]["experiment_id"], summary["mlflow"]["registered_model"]) == (None, None)
    assert json.loads((kept.out / "summary.json").read_text())["mlflow"] == summary["mlflow"]
    assert "<dt>model</dt><dd>not registered</dd>" in (kept.out / "report.html").read_text()
    assert done.stderr.splitlines()[-1].endswith("You are not authenticated.; the next run writes them")
