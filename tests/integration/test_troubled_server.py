"""The record in a real MLflow server that answers 500 and 429, loses answers, and acts late."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.config.tracking_uri import default_tracking_uri
from orchestrator.tracking import recorder as recorder_module
from orchestrator.tracking import registry
from orchestrator.tracking.faults import late_files
from tests.integration.faulty_proxy import (
    Fault,
    Plan,
    each_kind_twice,
    nth_of_kind,
    proxy_before,
    share,
    stretch,
)
from tests.integration.recorded_runs import PATIENCE_S, record_search, recorded, scene_in
from tests.integration.recorded_scene import Scene, export_student
from tests.integration.served import free_port, mlflow_server, wait_until_it_answers

pytestmark = [pytest.mark.mlflow, pytest.mark.slow]
WRITES = {
    "POST /api/2.0/mlflow/experiments/create",
    "POST /api/2.0/mlflow/experiments/set-experiment-tag",
    "POST /api/2.0/mlflow/runs/create",
    "POST /api/2.0/mlflow/runs/log-batch",
    "POST /api/2.0/mlflow/runs/log-inputs",
    "POST /api/2.0/mlflow/runs/update",
    "POST /api/2.0/mlflow/logged-models",
    "PATCH /api/2.0/mlflow/logged-models/ID",
}


@dataclass(frozen=True)
class Served:
    """A server of this module: its port, and its store as this process reads it."""

    port: int
    client: MlflowClient


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder, port = tmp_path_factory.mktemp("served"), free_port()
    store = default_tracking_uri(folder)
    with mlflow_server(folder, store, port):
        wait_until_it_answers(port)
        direct = f"http://127.0.0.1:{port}"
        yield Served(port, MlflowClient(direct, registry_uri=direct))


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "_FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(recorder_module, "_POLL_S", 0.1)
    monkeypatch.setattr(late_files, "_FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(registry, "_WAITS_FOR_SERVER_S", (0.0,) * 100)


def record_again(scene: Scene, served: Served) -> Scene:
    """The same ledger, recorded in the same store by a recorder that nothing disturbs."""
    calm = scene.out.with_name(f"{scene.out.name}-calm")
    shutil.copytree(scene.out, calm, ignore=shutil.ignore_patterns("mlflow.json"))
    again = Scene(f"http://127.0.0.1:{served.port}", calm)
    assert not again.recorder().close("FINISHED", timeout_s=PATIENCE_S)
    return again


@pytest.mark.parametrize(
    "plan",
    [
        pytest.param(each_kind_twice(), id="each_kind_of_request_arrives_unanswered_and_is_then_refused"),
        pytest.param(share(0.15, seed=14), id="a_share_of_all_requests"),
        pytest.param(stretch(25, 40), id="a_stretch_of_time"),
    ],
)
def test_what_a_server_in_trouble_has_in_the_end_is_what_an_undisturbed_one_has(
    served: Served, tmp_path: Path, plan: Plan, request: pytest.FixtureRequest
) -> None:
    with proxy_before(served.port, plan) as (uri, proxy):
        scene = scene_in(tmp_path, uri, "troubled")
        record_search(scene)
        assert len(proxy.faults) > 5
        if "each_kind" in request.node.callspec.id:
            twice = {kind for kind, _ in proxy.faults}
            assert twice >= WRITES
            assert any(kind.startswith("PUT ") and kind.endswith("report.html") for kind in twice)
    calm = record_again(scene, served)
    found = recorded(served.client, scene.name)
    assert found.keys() == {"parent", "t-1", "t-2", "t-3", "t-1-seed0", "t-1-seeds"}
    assert len(found["t-1"]["points"]) > 4 * 5
    assert found["t-1"]["models"].keys() == {"student"}
    assert found == recorded(served.client, calm.name)


@pytest.mark.parametrize(("nth", "which"), [(1, "the parent"), (2, "a student")])
def test_a_run_that_was_made_late_beside_another_does_not_stay(
    served: Served, tmp_path: Path, nth: int, which: str
) -> None:
    with proxy_before(served.port, nth_of_kind("/runs/create", nth, Fault(504, is_late=True))) as (
        uri,
        proxy,
    ):
        scene = scene_in(tmp_path, uri, "late")
        record_search(scene)
        made = sum(kind.endswith("/runs/create") for kind in proxy.kinds)
        deleted = sum(kind.endswith("/runs/delete") for kind in proxy.kinds)
        assert (len(proxy.faults), made, deleted) == (1, 7, 1)  # six runs, one of them twice
    calm = record_again(scene, served)
    assert recorded(served.client, scene.name) == recorded(served.client, calm.name)


def test_a_champion_is_registered_once_whatever_answers_are_lost(served: Served, tmp_path: Path) -> None:
    scene = scene_in(tmp_path, f"http://127.0.0.1:{served.port}", "champion")
    recorder = scene.recorder()
    scene.start("t-1", temperature=4.0)
    scene.train("t-1", range(1, 3))
    scene.end("t-1", "completed")
    assert not recorder.close("FINISHED", timeout_s=PATIENCE_S)
    run_id = recorder.run_id("t-1")
    assert run_id is not None
    export_student(tmp_path / "student", seed=3)
    with proxy_before(served.port, each_kind_twice()) as (uri, proxy):
        version = registry.register_champion(
            uri,
            model_name=scene.out.name,
            run_id=run_id,
            exported=tmp_path / "student",
            tags={"teacher": "3f2a"},
        )
        troubled = {kind for kind, _ in proxy.faults}
    assert {"POST /api/2.0/mlflow/logged-models", "POST /api/2.0/mlflow/model-versions/create"} <= troubled
    assert "POST /api/2.0/mlflow/runs/outputs" in troubled
    assert version == "1"
    versions = served.client.search_model_versions(f"name = '{scene.out.name}'")
    assert [(str(v.version), v.tags["teacher"]) for v in versions] == [("1", "3f2a")]
    assert served.client.get_model_version_by_alias(scene.out.name, "champion").version == "1"
    found = recorded(served.client, scene.name)["t-1"]["models"]
    assert {kind: model[0] for kind, model in found.items()} == {"student": "READY", "onnx": "READY"}
    outputs = served.client.get_run(run_id).outputs
    assert outputs is not None
    assert len(outputs.model_outputs) == 1
