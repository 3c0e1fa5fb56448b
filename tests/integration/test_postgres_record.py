"""The record in an MLflow server that keeps it in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.config.tracking_uri import absolute_tracking_uri, default_tracking_uri
from tests.integration.postgres_server import MISSING, Postgres, postgres, programs
from tests.integration.recorded_runs import PATIENCE_S, record_search, recorded, scene_in
from tests.integration.recorded_scene import Scene
from tests.integration.served import free_port, mlflow_server, wait_until_it_answers

pytestmark = [
    pytest.mark.mlflow,
    pytest.mark.postgres,
    pytest.mark.slow,
    pytest.mark.skipif(programs() is None, reason=MISSING),
]


@dataclass(frozen=True)
class Served:
    """An MLflow server, and the database behind it."""

    uri: str
    database: Postgres


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder, port = tmp_path_factory.mktemp("served"), free_port()
    with postgres() as database, mlflow_server(folder, database.uri, port):
        wait_until_it_answers(port)
        yield Served(f"http://127.0.0.1:{port}", database)


def all_of(scene: Scene) -> dict[str, object]:
    return dict(recorded(MlflowClient(scene.uri, registry_uri=scene.uri), scene.name))


def copied(scene: Scene, uri: str, out: Path) -> Scene:
    """The same ledger in another folder, for another store."""
    out.mkdir()
    for file in ("ledger.jsonl", "report.html"):
        (out / file).write_bytes((scene.out / file).read_bytes())
    return Scene(uri, out)


def test_postgresql_behind_a_server_has_what_an_sqlite_file_has(served: Served, tmp_path: Path) -> None:
    scene = scene_in(tmp_path, served.uri, "postgres")
    record_search(scene)
    local = copied(scene, default_tracking_uri(tmp_path), tmp_path / "sqlite")
    assert not local.recorder().close("FINISHED", timeout_s=PATIENCE_S)
    assert all_of(scene) == all_of(local)


def test_a_database_that_is_killed_under_the_server_costs_nothing(served: Served, tmp_path: Path) -> None:
    def killed() -> None:
        served.database.kill()
        served.database.start()

    scene = scene_in(tmp_path, served.uri, "killed")
    record_search(scene, midway=killed)
    calm = copied(scene, served.uri, tmp_path / f"{tmp_path.name}-calm")
    assert not calm.recorder().close("FINISHED", timeout_s=PATIENCE_S)
    assert all_of(scene) == all_of(calm)


def test_the_address_of_the_database_itself_is_refused_with_the_server_to_start(served: Served) -> None:
    with pytest.raises(
        ValueError, match=r"mlflow server --backend-store-uri postgresql\+psycopg2://"
    ) as refused:
        absolute_tracking_uri(served.database.uri)
    assert served.database.password not in str(refused.value)
