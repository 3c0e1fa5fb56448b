"""The record in a real MLflow server that asks for user and password; who gives the wrong ones is told so."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.config.tracking_uri import default_tracking_uri
from orchestrator.tracking.registry import register_champion
from orchestrator.tracking.store import prepare_mlflow
from tests.integration.recorded_runs import PATIENCE_S, record_search, recorded, scene_in
from tests.integration.recorded_scene import Scene, children, curves, every_term, export_student
from tests.integration.served import free_port, mlflow_server, wait_until_it_answers

pytestmark = [pytest.mark.mlflow, pytest.mark.slow]
USER = "distiller"
# With an @ and a slash, which an address has in another form.
PASSWORD = f"p@ss/{secrets.token_hex(8)}"
IN_ADDRESS = PASSWORD.replace("@", "%40").replace("/", "%2F")
WRONG = f"wr0ng-{secrets.token_hex(8)}"
EXPERIMENT = Path(__file__).parents[1] / "whole_run.yaml"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address without scheme of a server with one user, who may do everything."""
    folder, port = tmp_path_factory.mktemp("served"), free_port()
    variables = {
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
        "MLFLOW_AUTH_ADMIN_USERNAME": USER,
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
    }
    options = ("--app-name", "basic-auth")
    with mlflow_server(folder, default_tracking_uri(folder), port, options=options, environment=variables):
        wait_until_it_answers(port)
        yield f"127.0.0.1:{port}"


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_mlflow()
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)


def in_environment(monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)


def addresses(host: str) -> dict[str, str]:
    return {
        "right": f"http://{USER}:{IN_ADDRESS}@{host}",
        "wrong": f"http://{USER}:{WRONG}@{host}",
        "none": f"http://{host}",
    }


def require_no_password(out: Path, *said: str) -> None:
    for file in out.rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        for password in (PASSWORD, IN_ADDRESS, WRONG):
            assert password.encode() not in content, f"{file} has the password"
    for text in said:
        for password in (PASSWORD, IN_ADDRESS, WRONG):
            assert password not in text


@pytest.mark.parametrize("where", ["environment", "address"])
def test_runs_figures_files_and_models_come_to_a_server_that_asks_for_a_password(
    host: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: str,
) -> None:
    caplog.set_level(logging.INFO)
    if where == "environment":
        in_environment(monkeypatch, PASSWORD)
    uri = addresses(host)["none" if where == "environment" else "right"]
    scene = scene_in(tmp_path, uri, where)
    record_search(scene)
    client = MlflowClient(uri, registry_uri=uri)
    found = recorded(client, scene.name)
    assert found.keys() == {"parent", "t-1", "t-2", "t-3", "t-1-seed0", "t-1-seeds"}
    assert [path for path, _ in found["parent"]["files"]] == ["experiment.json", "report.html"]
    experiment = client.get_experiment_by_name(scene.name)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], "tags.trial_id = 't-1'")
    export_student(tmp_path / "student", seed=3)
    version = register_champion(
        uri, model_name=scene.out.name, run_id=run.info.run_id, exported=tmp_path / "student", tags={}
    )
    assert version == "1"
    require_no_password(scene.out, caplog.text)


def test_who_is_not_let_in_is_told_so_while_the_search_goes_on_and_nothing_is_lost(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    scene = scene_in(tmp_path, addresses(host)["wrong"], "wrong")
    recorder = scene.recorder()
    scene.start("t-1", temperature=4.0)
    scene.train("t-1", range(1, 3))
    left = recorder.flush(PATIENCE_S)  # does not wait for a server that lets nobody in
    assert left.events == len(scene.ledger.events())
    scene.train("t-1", range(3, 5))
    scene.end("t-1", "completed")
    left = recorder.close("FINISHED")
    assert left.events == len(scene.ledger.events())
    for said in (str(left), caplog.text):
        assert "does not let this user in; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in said
    assert "training goes on" in caplog.text
    require_no_password(scene.out, caplog.text, str(left))

    in_environment(monkeypatch, PASSWORD)
    again = Scene(addresses(host)["none"], scene.out)
    recorder = again.recorder()
    assert not recorder.close("FINISHED", timeout_s=PATIENCE_S)
    client = MlflowClient(again.uri, registry_uri=again.uri)
    assert curves(client, children(client, recorder)["t-1"]) == every_term(4)


@pytest.mark.parametrize(
    "who", ["right", "wrong", "none", "right in the environment", "wrong in the environment"]
)
def test_doctor_validate_and_run_give_one_answer(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    if who.endswith("environment"):
        in_environment(monkeypatch, PASSWORD if who.startswith("right") else WRONG)
    uri = addresses(host).get(who, f"http://{host}")
    is_let_in = who.startswith("right")
    shown = f"http://{host} {'answers and lets this user in' if is_let_in else 'does not let this user in'}"

    doctor = CliRunner().invoke(app, ["doctor", "--out", str(tmp_path), "--tracking-uri", uri, "--json"])
    (check,) = [c for c in json.loads(doctor.stdout)["checks"] if c["name"] == "tracking"]
    assert (check["ok"], check["detail"]) == (is_let_in, shown)

    file = tmp_path / "whole_run.yaml"
    file.write_text(f"{EXPERIMENT.read_text()}record: {{tracking_uri: '{uri}'}}\n")
    deep = CliRunner().invoke(app, ["validate", str(file), "--deep", "--json"])
    problems = json.loads(deep.stdout)["preflight"]["problems"]
    assert (deep.exit_code, len(problems)) == ((0, 0) if is_let_in else (2, 1))
    require_no_password(tmp_path / "out", doctor.output, deep.output)
    if is_let_in:
        return  # what a run records there is tested above
    assert shown in problems[0]
    run = CliRunner().invoke(app, ["run", str(file), "--out", str(tmp_path / "out")])
    assert run.exit_code != 0
    assert shown in f"{run.output}{run.exception}"
    require_no_password(tmp_path / "out", run.output, str(run.exception))
