"""One check of a tracking URI: experiment file, doctor and run give the same answer."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.doctor import Check
from orchestrator.cli import app
from orchestrator.config.loading import EXPERIMENTS_FOLDER, load_experiment
from orchestrator.config.paths import tracking_uri
from orchestrator.tracking.faults import access
from trainables.errors import ConfigError

OPERATIONS = (Path(__file__).parents[4] / "docs" / "operations.md").read_text()
DOCUMENTED = [
    pytest.param(address, accepted == "yes", id=address)
    for address, accepted in re.findall(r"^\| `([^`]+)` \| (yes|no) \|", OPERATIONS, re.MULTILINE)
]
DIGITS = (EXPERIMENTS_FOLDER / "digits.yaml").read_text()
REFUSED = [
    "mlruns",
    "file:///tmp/mlruns",
    "sqlite://",
    "sqlite:///:memory:",
    "ftp://host/x",
    "postgresql://me:secret@host/db",
    "postgresql+psycopg2://me:secret@host/db",
    "mysql+pymysql://me:secret@host/db",
    "mssql+pyodbc://me:secret@host/db",
    "databricks",
    "databricks://profile",
]


def experiment_with(folder: Path, uri: str) -> Path:
    path = folder / "my.yaml"
    path.write_text(f"{DIGITS}\nrecord:\n  tracking_uri: {json.dumps(uri)}\n")
    return path


@pytest.mark.parametrize("uri", REFUSED)
def test_what_no_run_can_record_to_is_refused_when_the_file_is_read(tmp_path: Path, uri: str) -> None:
    path = experiment_with(tmp_path, uri)
    line = len(path.read_text().splitlines())
    with pytest.raises(ConfigError, match=r"sqlite:////absolute/path/mlflow\.db") as caught:
        load_experiment(str(path))
    assert f"{path}:{line}: record.tracking_uri" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("uri", REFUSED)
def test_the_doctor_refuses_it_in_the_same_words(tmp_path: Path, uri: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_experiment(str(experiment_with(tmp_path, uri)))
    done = CliRunner().invoke(app, ["doctor", "--out", str(tmp_path), "--tracking-uri", uri, "--json"])
    (check,) = [c for c in json.loads(done.stdout)["checks"] if c["name"] == "tracking"]
    assert done.exit_code == 1
    assert not check["ok"]
    assert check["next_step"] in str(caught.value)
    assert "secret" not in done.output


@pytest.mark.parametrize(
    ("uri", "absolute"),
    [
        ("sqlite:////srv/mlflow.db", "sqlite:////srv/mlflow.db"),
        ("sqlite:///mlflow.db", "sqlite:///{here}/mlflow.db"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("https://me:secret@host/mlflow", "https://me:secret@host/mlflow"),
    ],
)
def test_what_is_accepted_is_what_the_run_records_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, absolute: str
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load_experiment(str(experiment_with(tmp_path, uri)))
    assert tracking_uri(loaded) == absolute.format(here=tmp_path)


def test_the_doctor_accepts_an_sqlite_file_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["doctor", "--tracking-uri", "sqlite:///mlflow.db", "--json"])
    (check,) = [c for c in json.loads(done.stdout)["checks"] if c["name"] == "tracking"]
    assert check["ok"]
    assert check["detail"] == f"SQLite at {tmp_path}/mlflow.db"


def test_the_doctor_shows_no_password_of_a_server_that_is_away(tmp_path: Path) -> None:
    uri = "http://me:secret@127.0.0.1:1"
    done = CliRunner().invoke(app, ["doctor", "--out", str(tmp_path), "--tracking-uri", uri, "--json"])
    (check,) = [c for c in json.loads(done.stdout)["checks"] if c["name"] == "tracking"]
    assert "http://127.0.0.1:1 does not answer" in check["detail"]
    assert "secret" not in done.output


@pytest.mark.parametrize(("address", "is_accepted"), DOCUMENTED)
def test_run_validate_and_doctor_accept_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, is_accepted: bool
) -> None:
    monkeypatch.setattr(access, "tracking_check", lambda uri: Check("tracking", True, f"asked {uri}"))
    file = str(experiment_with(tmp_path, address))
    run = CliRunner().invoke(app, ["run", file, "--out", "/dev/null/no folder"])
    validate = CliRunner().invoke(app, ["validate", file])
    doctor = CliRunner().invoke(app, ["doctor", "--tracking-uri", address, "--json"])
    (check,) = [c for c in json.loads(doctor.stdout)["checks"] if c["name"] == "tracking"]
    refused = "record.tracking_uri" in f"{run.output}{run.exception}"
    assert [not refused, validate.exit_code == 0, check["ok"]] == [is_accepted] * 3


def test_the_page_tells_of_addresses_of_both_kinds() -> None:
    assert {param.values[1] for param in DOCUMENTED} == {True, False}
    assert len(DOCUMENTED) >= 12
