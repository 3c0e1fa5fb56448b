"""The record in a real MLflow server that comes and goes, and the page that shows it."""

from __future__ import annotations

import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.commands.mlflow_ui import serve_ui
from orchestrator.config.tracking_uri import default_tracking_uri
from tests.integration.recorded_scene import (
    Scene,
    check_champion,
    children,
    curves,
    every_term,
    export_student,
    is_ready,
    register,
)
from tests.integration.served import answers, free_port, mlflow_server
from trainables.errors import ConfigError

pytestmark = pytest.mark.mlflow


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = default_tracking_uri(tmp_path_factory.mktemp("store"))
    MlflowClient(uri, registry_uri=uri).search_experiments()  # makes the tables
    return uri


@pytest.mark.slow
def test_a_server_that_is_away_is_waited_for_and_nothing_is_lost_or_doubled(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    scene = Scene(f"http://127.0.0.1:{port}", tmp_path)
    recorder = scene.recorder()
    scene.start("t-1", temperature=4.0)
    scene.train("t-1", range(1, 4))
    waiting = recorder.flush(3)
    assert waiting.events == len(scene.ledger.events())
    assert not is_ready(recorder, 0)

    with mlflow_server(tmp_path, store, port):
        assert is_ready(recorder, 240)
        assert not recorder.flush(60)
    scene.train("t-1", range(4, 6))
    waiting = recorder.flush(3)
    assert waiting.events == 2
    assert waiting.error is not None

    with mlflow_server(tmp_path, store, port):
        scene.end("t-1", "completed")
        client = MlflowClient(scene.uri, registry_uri=scene.uri)
        assert not recorder.flush(240)
        export_student(tmp_path / "student", seed=3)
        assert register(scene, recorder, tmp_path / "student") == "1"
        check_champion(scene, tmp_path / "student", monkeypatch)
        assert not recorder.close("FINISHED")
        run = children(client, recorder)["t-1"]
        assert curves(client, run) == every_term(5)
        assert client.get_run(recorder.parent_run_id).info.status == "FINISHED"
        assert [file.path for file in client.list_artifacts(recorder.parent_run_id)] == ["experiment.json"]


def read_until(process: subprocess.Popen[str], text: str, timeout_s: float) -> list[str]:
    assert process.stdout is not None
    lines: list[str] = []
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        ready, _, _ = select.select([process.stdout], [], [], 1.0)
        if not ready:
            continue
        line = process.stdout.readline()
        lines.append(line)
        if text in line or not line:
            return lines
    raise AssertionError(f"no {text!r} in {lines}")


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_the_page_is_served_on_a_free_port_until_interrupted(store: str, number: signal.Signals) -> None:
    code = f"from orchestrator.commands.mlflow_ui import serve_ui; serve_ui({store!r}, '1', port={{}})"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = int(taken.getsockname()[1])
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", code.format(busy)], stdout=subprocess.PIPE, text=True
        )
        try:
            lines = read_until(process, "/#/experiments/1/runs?viewStateShareKey=best", 240)
            port = int(lines[-1].split(":")[2].split("/")[0])
            assert lines[0] == f"port {busy} is taken, using {port}\n"
            assert answers(port)
        finally:
            process.send_signal(number)
            assert process.wait(60) == 0
    assert not answers(port)


def test_a_server_already_there_is_only_linked_to() -> None:
    lines: list[str] = []
    serve_ui("https://me:secret@mlflow.example.org/", "3", echo=lines.append)
    link = (
        "https://mlflow.example.org/#/experiments/3/runs?viewStateShareKey=best&workflowType=machine_learning"
    )
    assert lines == [link]


def test_a_page_without_a_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run an experiment first"):
        serve_ui(default_tracking_uri(tmp_path), "1")
