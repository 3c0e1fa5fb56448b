"""Weights that MLflow keeps: the file of tensors of a registered model or of a run, brought here."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import urlsplit

import mlflow.artifacts
from mlflow import MlflowClient

from orchestrator.tracking.faults.errors import StoreAway, WriteRefused, translated
from orchestrator.tracking.store import prepare_mlflow
from trainables.checkpoint_header import CONFIG, PREPROCESSING, SUFFIXES, WEIGHTS
from trainables.errors import ConfigError
from trainables.export.model_card import CARD_FILE
from trainables.export.stated import FILES

_DEPTH: Final = 4
_MODEL_FILE: Final = "MLmodel"
_PICKLED: Final = PurePosixPath("data", "model.pth")
"""Where MLflow's PyTorch flavour keeps a module, pickled whole."""
_SHOWN: Final = 5
_OF_STUDENTS: Final = (FILES["safetensors"], "model.onnx", "model.onnx.data")
"""What is asked of a registered student; MLflow gives its ONNX file that name, and .data holds large ones."""


def pinned_uri(uri: str, *, store: str) -> str:
    """The version that an alias, or `latest`, of a registered model means now: models:/NAME/VERSION.

    Raises:
        ConfigError: there is no such model, alias or version.
        StoreAway: MLflow does not answer.
    """
    name, _, alias = uri.removeprefix("models:/").strip("/").partition("@")
    name, _, stage = name.partition("/")
    client = _client(store)
    with _reading(uri, store):
        if alias:
            return f"models:/{name}/{client.get_model_version_by_alias(name, alias).version}"
        versions = [int(found.version) for found in client.search_model_versions(f"name = '{name}'")]
    if stage not in ("latest", "") or not versions:
        raise ConfigError(
            f"checkpoint {uri}: MLflow has {len(versions)} versions of {name!r}; name one as "
            "models:/NAME/VERSION, models:/NAME/latest or models:/NAME@ALIAS"
        )
    return f"models:/{name}/{max(versions)}"


def fetched_weights(uri: str, *, store: str, folder: Path) -> Path:
    """The file of tensors of a model or a run, in `folder`; with what transformers keeps beside it.

    One that lies there already is not fetched again.

    Raises:
        ConfigError: MLflow has no such thing, or no one file of tensors in it.
        StoreAway: MLflow does not answer.
    """
    if there := sorted(path for path in folder.glob("*") if path.suffix in SUFFIXES):
        return there[0]
    with _reading(uri, store):
        root = _root(uri, store)
        chosen, files = PurePosixPath(), [PurePosixPath()]
        if PurePosixPath(root).suffix not in SUFFIXES:
            files = list(_files(root, PurePosixPath(), store, _DEPTH))
            chosen = _chosen(files, uri)
        beside = [chosen.with_name(name) for name in (CONFIG, PREPROCESSING) if chosen.name]
        wanted = [chosen, *(path for path in beside if path in files)]
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            whole = Path(scratch, "whole")
            whole.mkdir()
            for path in wanted:
                place = f"{root.rstrip('/')}/{path}" if path.name else root
                mlflow.artifacts.download_artifacts(
                    artifact_uri=place, dst_path=str(whole), tracking_uri=store
                )
            shutil.rmtree(folder, ignore_errors=True)
            whole.rename(folder)  # at once: a part of a file would pass for one that was fetched before
    return folder / (chosen.name or PurePosixPath(root).name)


def fetch_student(uri: str, *, store: str, folder: Path) -> None:
    """Bring weights, ONNX file and card of a registered version, models:/NAME/VERSION, into a folder.

    Raises:
        ConfigError: MLflow has no such version, or no exported student in it.
        StoreAway: MLflow does not answer.
    """
    with _reading(uri, store):
        root = _root(uri, store)
        files = list(_files(root, PurePosixPath(), store, depth=0))
        students = [path for path in files if path.name in _OF_STUDENTS]
        if not students:
            listed = ", ".join(map(str, files[:_SHOWN])) or "nothing"
            raise ConfigError(f"{uri} is no student that stillhouse registered; it has {listed}")
        for path in [*students, *(path for path in files if path.name == CARD_FILE)]:
            place = f"{root.rstrip('/')}/{path}"
            mlflow.artifacts.download_artifacts(artifact_uri=place, dst_path=str(folder), tracking_uri=store)


def _root(uri: str, store: str) -> str:
    """Where the artifacts lie: a registered version knows."""
    name, _, version = uri.removeprefix("models:/").strip("/").partition("/")
    if uri.startswith("models:/") and version:
        return str(_client(store).get_model_version_download_uri(name, version))
    return uri


def _files(root: str, below: PurePosixPath, store: str, depth: int) -> Iterator[PurePosixPath]:
    """All files, some folders deep, relative to the root."""
    place = f"{root.rstrip('/')}/{below}" if below.name else root
    for entry in mlflow.artifacts.list_artifacts(artifact_uri=place, tracking_uri=store):
        path = below / PurePosixPath(entry.path).name
        if not entry.is_dir:
            yield path
        elif depth:
            yield from _files(root, path, store, depth - 1)


def _chosen(files: list[PurePosixPath], uri: str) -> PurePosixPath:
    """The one file of tensors, safetensors before others.

    Raises:
        ConfigError: there is none, or several.
    """
    pickled = [path for path in files if path.parts[-2:] == _PICKLED.parts]
    found = [path for path in files if path.suffix in SUFFIXES and path not in pickled]
    best = [path for path in found if path.suffix == ".safetensors"] or found
    if len(best) > 1 and any(path.name == WEIGHTS for path in best):
        best = [path for path in best if path.name == WEIGHTS]
    if len(best) == 1:
        return best[0]
    if pickled and not best:
        raise ConfigError(
            f"checkpoint {uri} is a PyTorch model of MLflow, a pickle, which is not read; where you trust "
            f"it, write its tensors: safetensors.torch.save_model(mlflow.pytorch.load_model({uri!r}), "
            "'weights.safetensors'), and name that file"
        )
    listed = ", ".join(map(str, (best or files)[:_SHOWN])) or "nothing"
    raise ConfigError(
        f"checkpoint {uri} has {len(best) or 'no'} files of tensors ({', '.join(SUFFIXES)}), one is "
        f"needed; it has {listed}; name one, as runs:/RUN/PATH/FILE"
    )


def _client(store: str) -> MlflowClient:
    prepare_mlflow()
    return MlflowClient(store, registry_uri=store)


class _reading:
    """A context in which MLflow's refusals name the checkpoint."""

    def __init__(self, uri: str, store: str) -> None:
        self._uri = uri
        self._translated = translated(remote=urlsplit(store).scheme in ("http", "https"))

    def __enter__(self) -> None:
        prepare_mlflow()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            self._translated.__exit__(kind, error, traceback)
        except (StoreAway, WriteRefused) as told:
            text = " ".join(str(told).split())
            raise ConfigError(f"checkpoint {self._uri} cannot be had from MLflow: {text}") from error
