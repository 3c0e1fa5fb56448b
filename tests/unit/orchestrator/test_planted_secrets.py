"""Secrets that are planted in a tracking URI are searched for in everything that a run writes and says."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.config.loading import EXPERIMENTS_FOLDER
from orchestrator.pipeline.stages import Stages
from orchestrator.records.events import LedgerIdentity, TrialEnded, TrialStarted
from orchestrator.records.ledger import Ledger, TrialRecord
from orchestrator.records.summary import Summary, write_summary
from orchestrator.reports.html_report import write_report
from orchestrator.reports.run_facts import RunFacts
from orchestrator.terminal.console import Console
from orchestrator.tracking.cursor import CursorFile, TrackingCursor
from orchestrator.tracking.faults.errors import StoreAway, translated
from orchestrator.tracking.parent import ParentFacts
from orchestrator.tracking.recorder import MlflowRecorder
from trainables.errors import StillhouseError

PLANTED = ("hunter2", "tok-3f2a", "pw-in-query")


class Failing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(500)
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a server that answers 500, with a password and two secret parameters."""
    httpd = HTTPServer(("127.0.0.1", 0), Failing)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield address(httpd.server_port)
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def address(port: int) -> str:
    return f"http://me:hunter2@127.0.0.1:{port}/?token=tok-3f2a&password=pw-in-query"


URI = address(5000)


def check(*said: str) -> None:
    for text in said:
        assert [secret for secret in PLANTED if secret in text] == []


def written(folder: Path) -> str:
    return "\n".join(path.read_text() for path in folder.rglob("*") if path.is_file())


def test_a_server_that_fails_has_its_address_told_without_secrets(
    tmp_path: Path, server: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger, out = Ledger(tmp_path), io.StringIO()
    facts = ParentFacts("digits", {"record": {"tracking_uri": server}})
    recorder = MlflowRecorder(
        ledger, tracking_uri=server, experiment_name="stillhouse/digits", out=tmp_path, parent=facts
    )
    with caplog.at_level(logging.DEBUG, logger="orchestrator"):
        recorder.start()
        deadline = time.monotonic() + 30
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.05)
        left = recorder.close("FAILED", timeout_s=0.1)
    assert "127.0.0.1" in str(left)
    assert left

    def fail() -> dict[str, object]:
        raise StillhouseError(f"{left}; {server}")

    with pytest.raises(StillhouseError):
        Stages(ledger, Console(out=out)).run("search", "key", fail)
    check(str(left), caplog.text, out.getvalue(), written(tmp_path), *capsys.readouterr())


def test_mlflows_own_words_are_masked_where_they_come_in() -> None:
    with pytest.raises(StoreAway, match="no answer of http://127") as caught, translated(remote=True):
        raise OSError(f"no answer of {URI}")
    check(str(caught.value))


def test_reasons_in_a_ledger_hold_no_secrets_and_what_is_trained_again_stays(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    spec = {"student": {"arguments": {"url": URI}}}
    ledger.append(
        TrialStarted(trial="t", role="search", search="s", objective="kd", parameters={}, spec=spec)
    )
    ended = TrialEnded(
        trial="t",
        status="failed",
        reason=f"cannot read {URI}",
        epochs=0,
        best_epoch=None,
        best={},
        final={},
        checkpoint=None,
    )
    ledger.append(ended)
    (line,) = [line for line in ledger.path.read_text().splitlines() if "trial_ended" in line]
    check(line)
    for opened in (ledger, Ledger(tmp_path)):
        (record,) = opened.trials()
        check(str(record.reason))
        assert record.spec == spec


def test_a_reason_that_an_earlier_version_wrote_is_masked_when_it_is_read(tmp_path: Path) -> None:
    event = {"seq": 0, "time_ms": 1, "kind": "stage", "stage": "search", "key": "k", "status": "failed"}
    (tmp_path / "ledger.jsonl").write_text(json.dumps({**event, "reason": URI}) + "\n")
    (read,) = Ledger(tmp_path).events()
    check(str(read))


def test_a_long_reason_is_masked_before_it_is_cut(tmp_path: Path) -> None:
    def fail() -> dict[str, object]:
        raise StillhouseError(f"{'x' * 1980} http://me:hunter2hunter2@host")

    with pytest.raises(StillhouseError):
        Stages(Ledger(tmp_path), Console(out=io.StringIO())).run("search", "key", fail)
    check(written(tmp_path))


def test_summary_report_and_cursor_hold_no_secrets(
    tmp_path: Path, summary: Summary, search_records: list[TrialRecord]
) -> None:
    place = summary.mlflow.with_overrides(tracking_uri=URI, ui_url=URI)
    planted = Summary.from_plain({**summary.plain(), "mlflow": place.plain(), "out": str(tmp_path)})
    write_summary(tmp_path / "summary.json", planted)
    facts = RunFacts("digits", search_records, [LedgerIdentity(ledger="l")], planted)
    write_report(tmp_path / "report.html", facts)
    cursor = TrackingCursor(ledger="l", experiment_id="1", parent_run_id="r", cursor=3)
    CursorFile(tmp_path, URI, "digits").save(cursor)
    assert CursorFile(tmp_path, URI, "digits").load() == cursor
    check(written(tmp_path))


def test_the_place_that_an_earlier_version_kept_with_its_secrets_is_found_and_masked(tmp_path: Path) -> None:
    cursor = TrackingCursor(ledger="l", experiment_id="1", parent_run_id="r", cursor=3)
    key = f"{URI.replace('me:hunter2@', '')} digits"
    (tmp_path / "mlflow.json").write_text(json.dumps({"schema": 2, "stores": {key: cursor.plain()}}))
    file = CursorFile(tmp_path, URI, "digits")
    assert file.load() == cursor
    file.save(cursor)
    check(written(tmp_path))


def test_what_mlflow_keeps_of_an_experiment_holds_no_secrets() -> None:
    record = {"tracking_uri": URI}
    config = {
        "record": record,
        "data": {"arguments": {"url": URI, "hf_token": "tok-3f2a", "mirrors": [URI], "size": 3}},
    }
    facts = ParentFacts("digits", config)
    check(json.dumps(facts.params()), json.dumps(facts.document()))
    assert facts.params()["data.arguments.size"] == "3"
    assert record["tracking_uri"] == URI


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    text = (EXPERIMENTS_FOLDER / "digits.yaml").read_text()
    path = tmp_path / "my.yaml"
    path.write_text(f"{text}\nrecord:\n  tracking_uri: {json.dumps(URI)}\n")
    return path


def test_an_experiment_is_shown_without_secrets(experiment: Path) -> None:
    done = CliRunner().invoke(app, ["validate", str(experiment), "--json"])
    assert done.exit_code == 0
    assert "tracking_uri" in done.output
    check(done.output)


def test_a_value_that_is_refused_is_shown_without_secrets(tmp_path: Path, experiment: Path) -> None:
    experiment.write_text(experiment.read_text().replace("http://", "ftp://"))
    code = f"import sys\nsys.argv = ['stillhouse', 'validate', '--json', {str(experiment)!r}]\n"
    done = in_process(f"{code}from orchestrator.cli import main\nmain()")
    assert done.returncode == 2
    assert "ftp://127.0.0.1:5000" in done.stderr
    check(done.stdout, done.stderr, str(tmp_path))


@pytest.mark.parametrize("error", ["StillhouseError", "RuntimeError"])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_an_error_is_told_without_secrets_whether_foreseen_or_not(error: str, options: list[str]) -> None:
    code = (
        "import sys\nimport orchestrator.cli as cli\nfrom trainables.errors import StillhouseError\n"
        f"uri = sys.argv.pop()\nsys.argv += {options}\n"
        f"def fail():\n    raise {error}('no answer of ' + uri)\n"
        "cli.app = fail\ncli.main()\n"
    )
    done = in_process(code, URI)
    assert done.returncode != 0
    assert "no answer of http://127.0.0.1:5000/?token=***&password=***" in done.stderr
    check(done.stdout, done.stderr)


def in_process(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)
