"""Shows the record: MLflow's server on this machine, opened at the ranked runs."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Final
from urllib.parse import urlsplit

import typer

from orchestrator.tracking.views import ranked_runs_url, view_names
from trainables.errors import ConfigError, StillhouseError

_START_S: Final = 180.0
_STOP_S: Final = 15.0
_TAIL_LINES: Final = 15
# By default MLflow's server is 15 processes and 1.8 GB; so it is 2 processes and 0.4 GB.
_ENVIRONMENT: Final = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
}


def serve_ui(
    tracking_uri: str,
    experiment_id: str,
    *,
    host: str = "127.0.0.1",
    port: int = 5000,
    echo: Callable[[str], None] = typer.echo,
) -> None:
    """Serve the record until Ctrl-C, and print the link to the ranked runs as soon as it answers.

    With an http(s) tracking URI that server shows the record already, and the link is all. A port that is
    taken is replaced by a free one.

    Raises:
        ConfigError: the URI is neither http(s) nor the SQLite file of an earlier run.
        StillhouseError: the server ended, or did not answer in three minutes.
    """
    if urlsplit(tracking_uri).scheme in ("http", "https"):
        echo(ranked_runs_url(tracking_uri, experiment_id))
        return
    database = _database(tracking_uri)
    free = _free_port(host, port)
    if free != port:
        echo(f"port {port} is taken, using {free}")
    with tempfile.TemporaryFile() as log, _server(database, host, free, log) as server:
        _wait_until_it_answers(server, host, free, log)
        echo(ranked_runs_url(f"http://{host}:{free}", experiment_id))
        echo(f"the menu Views has: {', '.join(view_names())}")
        echo("Ctrl-C stops the server")
        code = server.wait()
        raise StillhouseError(f"the MLflow server ended with code {code}:\n{_tail(log)}")


def _database(tracking_uri: str) -> Path:
    database = Path(tracking_uri.removeprefix("sqlite:///"))
    if not tracking_uri.startswith("sqlite:///") or not database.is_file():
        raise ConfigError(
            f"there is no record at {tracking_uri!r}; run an experiment first, or give the URI of a server"
        )
    return database.absolute()


def _free_port(host: str, wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if port == 0:
                    raise StillhouseError(f"cannot listen on {host}: {error}") from error
                continue
            return int(probe.getsockname()[1])
    raise StillhouseError(f"cannot listen on {host}:{wanted}")


@contextmanager
def _server(database: Path, host: str, port: int, log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """MLflow's server in a process group of its own, which Ctrl-C and SIGTERM end, and quietly."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{database}"]
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    server = subprocess.Popen(  # noqa: S603 (no shell, and no word of it comes from outside)
        command,
        env={**os.environ, **_ENVIRONMENT},
        cwd=database.parent,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield server
    except KeyboardInterrupt:
        return
    finally:
        signal.signal(signal.SIGTERM, before)
        _stop(server)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _stop(server: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
        except ProcessLookupError:
            break
        try:
            server.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            continue
    server.wait()


def _wait_until_it_answers(server: subprocess.Popen[bytes], host: str, port: int, log: IO[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise StillhouseError(
                f"the MLflow server ended with code {server.returncode} before it answered:\n{_tail(log)}"
            )
        if _answers(host, port):
            return
        time.sleep(0.5)
    raise StillhouseError(f"the MLflow server did not answer in {_START_S:g} s:\n{_tail(log)}")


def _answers(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=2.0)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _tail(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-_TAIL_LINES:])
