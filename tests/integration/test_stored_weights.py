"""Students and teachers that start from what MLflow keeps: registered models, and files of runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow.pytorch
import pytest
import torch
from mlflow import MlflowClient
from torch import nn

from orchestrator.config.loading import load_experiment
from orchestrator.pipeline.brought_weights import brought_weights, pinned
from orchestrator.pipeline.shipped.named import opened
from orchestrator.tracking.registry import register_champion
from orchestrator.tracking.store import prepare_mlflow
from orchestrator.tracking.stored_weights import fetched_weights, pinned_uri
from trainables.checkpoint_header import preprocessing_metadata, stated_classes
from trainables.config import ModelConfig, ModelName, Normalisation
from trainables.errors import ConfigError, StillhouseError
from trainables.export.model_card import CardFacts
from trainables.export.stated import STATED, stated_text
from trainables.export.tracing import write_graphs
from trainables.models import build_model
from trainables.models.weights import load_weights, save_weights, weights_digest
from trainables.views.normalise import normalise

pytestmark = pytest.mark.mlflow
MODEL = ModelConfig(name=ModelName.MLP, width=4)
FACTS: dict[str, Any] = {
    "classes": list("0123456789"),
    "normalisation": {"mean": [0.3], "std": [0.2]},
    "metrics": {},
    "lineage": {"cache": None, "trial_id": "t", "objective": "kd", "hyper_parameters": {}, "seed": 1},
    "architecture": {"network": MODEL.plain(), "n_classes": 10, "in_channels": 1, "parameters": 1},
}
EXPERIMENT = """\
name: task
data: {name: digits}
teacher: {model: {name: mlp, width: 4}, checkpoint: "models:/pets@champion"}
student: {name: mlp}
views: {weak: {views: 1, recipe: []}}
space: kd
record: {tracking_uri: "STORE"}
"""


@dataclass(frozen=True)
class Kept:
    """A store with a registered student of ours, and files of a run."""

    store: str
    run_id: str
    digest: str


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(MODEL, n_classes=10, in_channels=1)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    folder = tmp_path_factory.mktemp("stored")
    prepare_mlflow()
    store = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(store, registry_uri=store)
    experiment = client.create_experiment("pets", artifact_location=(folder / "files").as_uri())
    run_id = client.create_run(experiment).info.run_id
    student, exported = network(), folder / "champion"
    exported.mkdir()
    metadata = preprocessing_metadata(Normalisation(mean=(0.3,), std=(0.2,)), list("0123456789"))
    metadata[STATED] = stated_text(CardFacts.from_plain(FACTS), (1, 8, 8))
    save_weights(student, exported / "student.safetensors", metadata)
    write_graphs(
        student.eval(),
        input_shape=(1, 8, 8),
        metadata={},
        torch_export=exported / "student.pt2",
        onnx=exported / "student.onnx",
    )
    register_champion(store, model_name="pets", run_id=run_id, exported=exported, tags={})
    torch.save(network(seed=1).state_dict(), folder / "state.pth")
    client.log_artifact(run_id, str(folder / "state.pth"), "weights")
    mlflow.pytorch.save_model(network(), folder / "pickled", serialization_format="pickle")
    client.log_artifacts(run_id, str(folder / "pickled"), "pickled")
    client.log_artifacts(run_id, str(exported), "several")
    client.log_artifact(run_id, str(folder / "state.pth"), "several")
    return Kept(store, run_id, weights_digest(student))


def digest_of_file(file: Path) -> str:
    model = network(seed=2)
    load_weights(model, file)
    return weights_digest(model)


@pytest.mark.parametrize("uri", ["models:/pets/1", "models:/pets@champion", "models:/pets/latest"])
def test_a_registered_student_of_ours_is_a_checkpoint(kept: Kept, tmp_path: Path, uri: str) -> None:
    named = uri if uri.endswith("/1") else pinned_uri(uri, store=kept.store)
    assert named == "models:/pets/1"
    file = fetched_weights(named, store=kept.store, folder=tmp_path / "weights")
    assert (file.name, stated_classes(file)) == ("student.safetensors", tuple("0123456789"))
    assert digest_of_file(file) == kept.digest
    assert [path.name for path in file.parent.iterdir()] == ["student.safetensors"]
    before = file.stat().st_mtime_ns
    assert fetched_weights(named, store="sqlite:////nowhere", folder=tmp_path / "weights") == file
    assert file.stat().st_mtime_ns == before


@pytest.mark.parametrize("uri", ["models:/pets/1", "models:/pets@champion"])
def test_a_registered_student_is_asked_by_its_name(kept: Kept, uri: str) -> None:
    images = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    with opened(uri, tracking_uri=kept.store) as student:
        found = student.logits(images)
        folder = student.file.parent
    with torch.no_grad():
        expected = network().eval()(normalise(images, (0.3,), (0.2,)))
    torch.testing.assert_close(found, expected)
    assert student.classes == tuple("0123456789")
    assert not folder.exists()


def test_a_registered_model_that_is_no_student_is_told(kept: Kept) -> None:
    with pytest.raises(ConfigError), opened("models:/nobody@champion", tracking_uri=kept.store):
        pass


@pytest.mark.parametrize("path", ["weights", "weights/state.pth", "several/student.safetensors"])
def test_a_file_of_a_run_is_a_checkpoint(kept: Kept, tmp_path: Path, path: str) -> None:
    file = fetched_weights(f"runs:/{kept.run_id}/{path}", store=kept.store, folder=tmp_path / "weights")
    expected = kept.digest if "student" in path else weights_digest(network(seed=1))
    assert digest_of_file(file) == expected


def test_safetensors_come_before_other_files(kept: Kept, tmp_path: Path) -> None:
    file = fetched_weights(f"runs:/{kept.run_id}/several", store=kept.store, folder=tmp_path / "weights")
    assert file.name == "student.safetensors"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("runs:/RUN/pickled", r"a PyTorch model of MLflow, a pickle, .* safetensors\.torch\.save_model"),
        ("runs:/RUN/nothing", r"no files of tensors|cannot be had"),
        ("models:/pets/7", "models:/pets/7 cannot be had from MLflow: .*7"),
        ("models:/cats/1", "models:/cats/1 cannot be had from MLflow: .*cats"),
        ("runs:/" + 32 * "0" + "/weights", "cannot be had from MLflow"),
    ],
)
def test_what_is_no_file_of_tensors_is_one_line(kept: Kept, tmp_path: Path, uri: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        fetched_weights(uri.replace("RUN", kept.run_id), store=kept.store, folder=tmp_path / "weights")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize("uri", ["models:/pets@nobody", "models:/cats/latest", "models:/pets/Production"])
def test_a_name_of_no_version_is_one_line(kept: Kept, uri: str) -> None:
    with pytest.raises(ConfigError, match=uri) as raised:
        pinned_uri(uri, store=kept.store)
    assert "\n" not in str(raised.value)


def test_a_server_that_is_away_is_one_line_without_its_password(tmp_path: Path) -> None:
    store = "http://someone:PLANTED@127.0.0.1:9"
    with pytest.raises(StillhouseError, match="cannot be had from MLflow") as raised:
        fetched_weights("models:/pets/1", store=store, folder=tmp_path / "weights")
    assert "PLANTED" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_experiment_is_known_by_the_version_that_an_alias_means(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("task.yaml").write_text(EXPERIMENT.replace("STORE", kept.store))
    loaded = pinned(load_experiment("task.yaml"))
    assert loaded.config.teacher.checkpoint == "models:/pets/1"
    file = brought_weights(loaded, "models:/pets/1", MODEL, tmp_path / "weights")
    assert digest_of_file(file) == kept.digest
