"""The model registry: the champion's exported files as one loadable version under the alias `champion`."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import mlflow.onnx
import onnx
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from orchestrator.config.registry_name import registrable
from orchestrator.tracking.faults.errors import AccessDenied, StoreAway, translated
from orchestrator.tracking.store import prepare_mlflow
from trainables.errors import ConfigError
from trainables.export.stated import FILES
from trainables.local_files import file_sha256

_log = logging.getLogger(__name__)

ALIAS: Final = "champion"
_WEIGHTS_TAG: Final = "weights_sha256"
_WAITS_S: Final = (2.0, 10.0)
_WAITS_FOR_SERVER_S: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""A server that is down for a minute is waited for."""
_INLINE_BYTES: Final = 1_500_000_000
_REQUIRED: Final = ("onnx", "onnxruntime", "numpy")


def register_champion(
    tracking_uri: str, *, model_name: str, run_id: str, exported: Path, tags: Mapping[str, str]
) -> str:
    """Register an exported student once, give it the alias `champion`, and return its version.

    `models:/NAME@champion` is an MLflow model of the onnx flavour (pyfunc and `mlflow.onnx` load it) with the
    safetensors, the card and every other exported file beside it. A student with the same weights is not
    registered again: its version gets the alias, the tags and the description anew.

    Args:
        tracking_uri: the store that holds the run, absolute.
        model_name: name in the registry.
        run_id: the champion's run.
        exported: folder with student.onnx and one .safetensors file.
        tags: lineage, such as teacher, cache, search and test figures; shown in the description.

    Raises:
        ConfigError: a name that the registry cannot hold, or no exported student in the folder.
        WriteRefused: MLflow does not take the model.
        StoreAway: MLflow did not take it, three times, or a server for a minute; AccessDenied comes at once.
    """
    require_model_name(model_name)
    graph = _only(exported, FILES["onnx"])
    digest = file_sha256(_only(exported, "*.safetensors"))
    prepare_mlflow()
    lineage = {**tags, _WEIGHTS_TAG: digest}
    for wait_s in _WAITS_FOR_SERVER_S if _is_remote(tracking_uri) else _WAITS_S:
        try:
            return _register(tracking_uri, model_name, run_id, graph, lineage)
        except AccessDenied:
            raise
        except StoreAway as error:
            _log.warning(
                "MLflow does not answer, the champion is registered again in %g s: %s", wait_s, error
            )
            time.sleep(wait_s)
    return _register(tracking_uri, model_name, run_id, graph, lineage)


def require_model_name(name: str) -> None:
    """Refuse a name that the registry cannot hold.

    Raises:
        ConfigError: naming it.
    """
    try:
        registrable(name)
    except ValueError as error:
        raise ConfigError(f"model name {name!r}: {error}; correct pick.model_name") from error


def _register(uri: str, name: str, run_id: str, graph: Path, lineage: Mapping[str, str]) -> str:
    """One attempt; what an earlier one did is found and used."""
    with translated(remote=_is_remote(uri)):
        client = MlflowClient(uri, registry_uri=uri)
        _ensure_name(client, name)
        digest = lineage[_WEIGHTS_TAG]
        found = client.search_model_versions(f"name = '{name}' and tags.{_WEIGHTS_TAG} = '{digest}'")
        known = [version for version in found if _is_there(version.source)]
        if known:
            registered = min(known, key=lambda found: int(found.version))
        else:
            model = _logged_model(client, run_id, graph, lineage)
            registered = _new_version(client, name, run_id, model, lineage)
        _promote(client, registered, run_id, lineage)
        return str(registered.version)


def _is_remote(uri: str) -> bool:
    return urlsplit(uri).scheme in ("http", "https")


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ConfigError(f"{folder} must hold one {pattern} file, found {names}; export the student again")
    return found[0]


def _ensure_name(client: MlflowClient, name: str) -> None:
    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(name, description="Students distilled and picked by Stillhouse.")


def _logged_model(client: MlflowClient, run_id: str, graph: Path, lineage: Mapping[str, str]) -> LoggedModel:
    """The student as a LoggedModel of its run; one that an interrupted registration left is used."""
    experiment_id = client.get_run(run_id).info.experiment_id
    digest = lineage[_WEIGHTS_TAG]
    found = client.search_logged_models([experiment_id], f"tags.{_WEIGHTS_TAG} = '{digest}'")
    ours = [model for model in found if model.source_run_id == run_id]
    for model in ours:
        if model.status == LoggedModelStatus.READY and _is_there(model.artifact_location):
            return model
    # One that was made, and whose answer was lost, gets its files now.
    begun = next((model for model in ours if model.status == LoggedModelStatus.PENDING), None)
    model = begun or client.create_logged_model(
        experiment_id, name="student", source_run_id=run_id, tags=dict(lineage), model_type="onnx"
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        _save(graph, folder, Model(run_id=run_id, model_id=model.model_id))
        client.log_model_artifacts(model.model_id, str(folder))
    _link(client, run_id, model.model_id)
    return client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def _link(client: MlflowClient, run_id: str, model_id: str) -> None:
    """Make a model an output of its run, once: MLflow refuses the second time, as after a lost answer."""
    outputs = client.get_run(run_id).outputs
    if all(known.model_id != model_id for known in (outputs.model_outputs if outputs else ())):
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])


def _is_there(location: str | None) -> bool:
    """Whether files that MLflow keeps in a folder are still there; other storage is believed."""
    parts = urlsplit(location or "")
    return parts.scheme not in ("", "file") or Path(unquote(parts.path)).exists()


def _save(graph: Path, folder: Path, model: Model) -> None:
    """An MLflow model folder of the onnx flavour, with the other exported files at its top."""
    proto = onnx.load(graph)
    mlflow.onnx.save_model(
        proto,
        folder,
        mlflow_model=model,
        signature=_signature(proto),
        # Left out, MLflow infers the requirements by loading the model in a new process (51 s).
        pip_requirements=[f"{name}=={version(name)}" for name in _REQUIRED],
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=proto.ByteSize() > _INLINE_BYTES,
    )
    for path in graph.parent.iterdir():
        external = path.name.startswith(graph.name)
        if path.is_file() and not external and not (folder / path.name).exists():
            shutil.copy2(path, folder / path.name)


def _signature(proto: onnx.ModelProto) -> ModelSignature:
    weights = {tensor.name for tensor in proto.graph.initializer}
    return ModelSignature(
        inputs=Schema([_tensor(value) for value in proto.graph.input if value.name not in weights]),
        outputs=Schema([_tensor(value) for value in proto.graph.output]),
    )


def _tensor(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
    return TensorSpec(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type), shape, value.name)


def _new_version(
    client: MlflowClient, name: str, run_id: str, model: LoggedModel, lineage: Mapping[str, str]
) -> ModelVersion:
    # A server resolves models:/ID itself and refuses paths; a local store would ask MLflow's global URI.
    remote = _is_remote(client.tracking_uri)
    source = f"models:/{model.model_id}" if remote else model.artifact_location
    return client.create_model_version(
        name, source, run_id=run_id, tags=dict(lineage), model_id=model.model_id
    )


def _promote(client: MlflowClient, registered: ModelVersion, run_id: str, lineage: Mapping[str, str]) -> None:
    name, number = registered.name, registered.version
    for key, value in lineage.items():
        client.set_model_version_tag(name, number, key, value)
    client.update_model_version(name, number, _description(run_id, lineage))
    client.set_registered_model_alias(name, ALIAS, number)
    client.set_tag(run_id, "registered_as", f"{name} v{number}")


def _description(run_id: str, lineage: Mapping[str, str]) -> str:
    lines = [f"- **{key}**: `{value}`" for key, value in sorted(lineage.items())]
    return "\n".join([f"Student of run `{run_id}`, picked by Stillhouse.", "", *lines])
