"""A record that was moved with its output folder: where MLflow's files and the cursor are looked for."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.config.tracking_uri import default_tracking_uri
from orchestrator.tracking.cursor import CursorFile, TrackingCursor
from orchestrator.tracking.moved_store import follow_folder
from tests.older_runs.unpacking import unpack_older_run
from trainables.errors import ConfigError

NAME = "stillhouse/three_trials"
MADE_IN = "/tmp/stillhouse/fixture/out/three_trials"  # noqa: S108


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return unpack_older_run(tmp_path).parent / "out" / "three_trials"


def locations(database: Path) -> list[str]:
    query = (
        "SELECT artifact_location FROM experiments UNION ALL SELECT artifact_uri FROM runs UNION ALL "
        "SELECT artifact_location FROM logged_models UNION ALL SELECT source FROM model_versions UNION ALL "
        "SELECT storage_location FROM model_versions"
    )
    with closing(sqlite3.connect(database)) as store:
        return [row[0] for row in store.execute(query)]


def test_all_addresses_of_artifacts_follow_the_folder_once(out: Path) -> None:
    assert follow_folder(default_tracking_uri(out), NAME, out) == Path(MADE_IN) / "mlartifacts"
    found = locations(out / "mlflow.db")
    assert len(found) == 13
    # The experiment that MLflow itself makes is nobody's here.
    assert [place for place in found if not place.startswith(f"{out.as_uri()}/mlartifacts")] == [
        "/tmp/stillhouse/fixture/mlruns/0"  # noqa: S108
    ]
    before = (out / "mlflow.db").read_bytes()
    assert follow_folder(default_tracking_uri(out), NAME, out) is None
    assert (out / "mlflow.db").read_bytes() == before


def test_a_copy_follows_and_the_original_stays(out: Path, tmp_path: Path) -> None:
    follow_folder(default_tracking_uri(out), NAME, out)
    before = (out / "mlflow.db").read_bytes()
    copy = tmp_path / "a copy"
    shutil.copytree(out, copy)
    assert follow_folder(default_tracking_uri(copy), NAME, copy) == out / "mlartifacts"
    assert (out / "mlflow.db").read_bytes() == before
    assert not any(str(out) in place for place in locations(copy / "mlflow.db"))


def test_another_name_of_the_same_folder_changes_nothing(out: Path, tmp_path: Path) -> None:
    follow_folder(default_tracking_uri(out), NAME, out)
    link = tmp_path / "link"
    link.symlink_to(out)
    before = (out / "mlflow.db").read_bytes()
    assert follow_folder(default_tracking_uri(link), NAME, link) is None
    assert (out / "mlflow.db").read_bytes() == before


def test_a_store_elsewhere_is_not_changed_and_no_file_goes_into_another_runs_folder(
    out: Path, tmp_path: Path
) -> None:
    follow_folder(default_tracking_uri(out), NAME, out)
    shared = tmp_path / "shared" / "mlflow.db"
    shared.parent.mkdir()
    (out / "mlflow.db").rename(shared)
    before = shared.read_bytes()
    refusal = "which is in the output folder of another run; this run does not write there: give record.exp"
    with pytest.raises(ConfigError, match=refusal):
        follow_folder(f"sqlite:///{shared}", NAME, tmp_path / "other")
    assert follow_folder(f"sqlite:///{shared}", "another", tmp_path / "other") is None
    assert follow_folder(f"sqlite:///{shared}", NAME, out) is None
    (out / "mlartifacts").rename(tmp_path / "gone")
    with pytest.raises(ConfigError, match="which is not there; this run does not write there"):
        follow_folder(f"sqlite:///{shared}", NAME, tmp_path / "other")
    assert shared.read_bytes() == before


def test_a_copy_of_a_store_elsewhere_does_not_write_beside_the_store_that_it_was(
    out: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    (out / "mlflow.db").rename(first / "mlflow.db")
    (first / "mlartifacts").mkdir()
    with closing(sqlite3.connect(first / "mlflow.db")) as store, store:
        query = "UPDATE experiments SET artifact_location = ? WHERE name = ?"
        store.execute(query, ((first / "mlartifacts").as_uri(), NAME))
    assert follow_folder(f"sqlite:///{first}/mlflow.db", NAME, out) is None
    shutil.copytree(first, second)
    with pytest.raises(ConfigError, match="which belongs to a store of which this one is a copy"):
        follow_folder(f"sqlite:///{second}/mlflow.db", NAME, out)


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:////nowhere/mlflow.db"])
def test_there_is_nothing_to_do_for_a_server_or_a_store_that_is_not_there(uri: str, tmp_path: Path) -> None:
    assert follow_folder(uri, NAME, tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_the_cursor_of_a_store_in_the_folder_is_found_wherever_the_folder_is(
    out: Path, tmp_path: Path
) -> None:
    found = CursorFile(out, default_tracking_uri(out), NAME).load()
    assert found is not None
    assert found.cursor == 77
    CursorFile(out, default_tracking_uri(out), NAME).save(found)
    assert list(json.loads((out / "mlflow.json").read_text())["stores"]) == [f"sqlite:///mlflow.db {NAME}"]
    shutil.copytree(out, tmp_path / "copy")
    assert CursorFile(tmp_path / "copy", default_tracking_uri(tmp_path / "copy"), NAME).load() == found
    assert CursorFile(out, default_tracking_uri(out), "another").load() is None


def test_a_store_elsewhere_keeps_its_address(tmp_path: Path) -> None:
    cursor = TrackingCursor(ledger="l", experiment_id="1", parent_run_id="p", cursor=3)
    CursorFile(tmp_path / "out", "sqlite:////shared/mlflow.db", NAME).save(cursor)
    assert CursorFile(tmp_path / "out", default_tracking_uri(tmp_path / "out"), NAME).load() is None
    assert CursorFile(tmp_path / "out", "sqlite:////shared/mlflow.db", NAME).load() == cursor
