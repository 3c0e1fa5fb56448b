"""What a store says when it is asked as a run asks it."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from orchestrator.tracking.faults.access import tracking_check
from orchestrator.tracking.faults.errors import LET_IN

ME = f"Basic {base64.b64encode(b'me:s3cret').decode()}"
NAMES = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


class _LetsOneIn(BaseHTTPRequestHandler):
    """Answers as MLflow does, in plain text, where it knows nobody."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        is_known = self.headers.get("Authorization") == ME
        body = b'{"experiments": []}' if is_known else b"You are not authenticated."
        self.send_response(200 if is_known else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    httpd = HTTPServer(("127.0.0.1", 0), _LetsOneIn)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_a_server_that_is_away_is_a_problem() -> None:
    found = tracking_check("http://me:s3cret@127.0.0.1:1")
    assert not found.ok
    assert found.detail.startswith("http://127.0.0.1:1 does not answer")
    assert found.next_step == "start the MLflow server, or correct the tracking URI"
    assert "s3cret" not in str(found)


@pytest.mark.parametrize("user", ["", "me:wr0ng@", "you:s3cret@"])
def test_a_server_that_does_not_know_the_user_is_a_problem(host: str, user: str) -> None:
    found = tracking_check(f"http://{user}{host}")
    assert (found.ok, found.next_step) == (False, LET_IN)
    assert found.detail == f"http://{host} does not let this user in"


def test_user_and_password_count_from_the_address_and_from_the_environment(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tracking_check(f"http://me:s3cret@{host}").ok
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cret")
    found = tracking_check(f"http://{host}")
    assert (found.ok, found.detail) == (True, f"http://{host} answers and lets this user in")


def test_a_store_in_a_folder_that_cannot_be_written_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    found = tracking_check(f"sqlite:///{tmp_path}/mlflow.db")
    assert not found.ok
    assert found.next_step == f"make {tmp_path} writable"


def test_an_sqlite_store_in_a_folder_to_come_is_fine_and_is_not_made(tmp_path: Path) -> None:
    assert tracking_check(f"sqlite:///{tmp_path}/new/mlflow.db").ok
    assert not (tmp_path / "new").exists()
