"""The MLflow store behind the recorder: runs, batches within MLflow's limits, and which errors pass."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelStatus,
    Metric,
    Param,
    Run,
    RunTag,
)
from mlflow.telemetry import set_telemetry_client

from orchestrator.tracking.changes import RUNNING, DataSet, Point, State, Upload
from orchestrator.tracking.faults.errors import StoreAway, WriteRefused, translated

_T = TypeVar("_T")

# One log_batch may hold 1000 metrics, 100 params, 100 tags and 1 MB; a param may have 6000 characters.
METRICS_PER_BATCH: Final = 1000
_PARAMS_PER_BATCH: Final = 50
_PAGE: Final = 1000
_FOREIGN_TO_MODELS: Final = re.compile(r"[/:.%\"']")
"""What the name of a model may not hold."""
_STUDENT: Final = "student"
"""The type of a model that is a finished trial."""
_ENVIRONMENT: Final[Mapping[str, str]] = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "1",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    # A bar for each file, in the middle of what a command writes.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # We wait and repeat by ourselves, where we can be woken; MLflow's own retries take four minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


@dataclass(frozen=True)
class KnownRun:
    """A run that the store holds."""

    run_id: str
    status: str
    latest: frozenset[tuple[str, int, int]] = frozenset()
    """Of each metric the key, time and step of the point that MLflow shows."""


def prepare_mlflow() -> None:
    """Turn telemetry, pickles and long HTTP retries off in this process, where the user has not set them.

    Side effects: environment variables, and the log level of MLflow's migrations.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # MLflow makes its telemetry client at import, before anyone can ask it not to.
    set_telemetry_client()  # type: ignore[no-untyped-call]
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # It logs each refusal of a database with its traceback; the recorder says so in one line.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


class RunStore:
    """Runs of one experiment in MLflow, through `MlflowClient` alone: no active run, no global URI.

    Every method raises StoreAway or WriteRefused, and nothing else of MLflow's.
    """

    def __init__(self, tracking_uri: str, experiment_name: str, artifacts: Path) -> None:
        """Open the store; a new SQLite file takes ten seconds of migrations.

        Args:
            tracking_uri: as `config.paths.tracking_uri` gives it.
            experiment_name: created when absent.
            artifacts: folder of a new experiment's artifacts; a server decides for itself.
        """
        self._remote = urlsplit(tracking_uri).scheme in ("http", "https")
        with translated(remote=self._remote):
            if not self._remote:
                Path(tracking_uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
            self._client = MlflowClient(tracking_uri, registry_uri=tracking_uri)
            self.experiment_id = self._open(experiment_name, artifacts)

    def _open(self, name: str, artifacts: Path) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            location = None if self._remote else artifacts.absolute().as_uri()
            return str(self._client.create_experiment(name, artifact_location=location))
        if found.lifecycle_stage != "active":
            raise StoreAway(
                f"experiment {name!r} is deleted in MLflow; `mlflow experiments restore -x "
                f"{found.experiment_id}` brings it back, or choose another record.experiment_name"
            )
        return str(found.experiment_id)

    def runs_of(self, ledger: str) -> Iterator[tuple[str, str | None, KnownRun]]:
        """Kind, trial and run of each run that was made from this ledger, oldest first."""
        token: str | None = None
        while True:
            with translated(remote=self._remote):
                page = self._client.search_runs(
                    [self.experiment_id],
                    f"tags.ledger = '{ledger}'",
                    max_results=_PAGE,
                    order_by=["attributes.start_time ASC"],
                    page_token=token,
                )
            for run in page:
                yield _described(run)
            token = page.token
            if not token:
                return

    def create(self, name: str, tags: Mapping[str, str], time_ms: int) -> str:
        """The id of a new run, RUNNING since that time."""
        with translated(remote=self._remote):
            run = self._client.create_run(
                self.experiment_id, start_time=time_ms, tags=dict(tags), run_name=name
            )
        return str(run.info.run_id)

    def discard(self, run_id: str) -> None:
        """Mark a run as deleted; `mlflow runs restore` brings it back, `mlflow gc` removes it."""
        with translated(remote=self._remote):
            self._client.delete_run(run_id)

    def params(self, run_id: str) -> dict[str, str]:
        """The parameters that a run has; MLflow never changes one."""
        with translated(remote=self._remote):
            return dict(self._client.get_run(run_id).data.params)

    def describe(self, run_id: str, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Add parameters and tags to a run."""
        for chunk in _chunks(list(params.items()), _PARAMS_PER_BATCH):
            with translated(remote=self._remote):
                self._client.log_batch(run_id, params=[Param(*item) for item in chunk])
        for chunk in _chunks(list(tags.items()), _PARAMS_PER_BATCH):
            with translated(remote=self._remote):
                self._client.log_batch(run_id, tags=[RunTag(*item) for item in chunk])

    def measure(
        self, run_id: str, points: Sequence[Point], *, model: str | None = None, data: DataSet | None = None
    ) -> None:
        """Add metric values to a run; those that it already has stay single.

        With a model they are also that model's, and say which data they are of.
        """
        linked: dict[str, str] = {} if model is None else {"model_id": model}
        if model is not None and data is not None:
            linked |= {"dataset_name": data.name, "dataset_digest": data.digest}
        for chunk in _chunks(points, METRICS_PER_BATCH):
            metrics = [Metric(point.key, point.value, point.time_ms, point.step, **linked) for point in chunk]
            with translated(remote=self._remote):
                self._client.log_batch(run_id, metrics=metrics)

    def model_of(self, run_id: str, name: str, params: Mapping[str, str], tags: Mapping[str, str]) -> str:
        """The id of the model of a run, which is made where it has none; it holds no files."""
        with translated(remote=self._remote):
            found = self._client.search_logged_models(
                [self.experiment_id],
                # The champion's run has a registered model too, of another type.
                filter_string=f"source_run_id = '{run_id}' and model_type = '{_STUDENT}'",
                max_results=1,
            )
            model = (
                found[0]
                if found
                else self._client.create_logged_model(
                    self.experiment_id,
                    name=_FOREIGN_TO_MODELS.sub("_", name),
                    source_run_id=run_id,
                    params=dict(params),
                    tags=dict(tags),
                    model_type=_STUDENT,
                )
            )
            if model.status != LoggedModelStatus.READY:
                model = self._client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
            return str(model.model_id)

    def add_inputs(self, run_id: str, data_sets: Sequence[DataSet]) -> None:
        """Say what a run learned from; an equal data set stays single."""
        inputs = [
            DatasetInput(
                Dataset(
                    name=each.name,
                    digest=each.digest,
                    source_type="stillhouse",
                    source=each.source,
                    profile=json.dumps(each.profile),
                ),
                [InputTag("mlflow.data.context", each.context)],
            )
            for each in data_sets
        ]
        with translated(remote=self._remote):
            self._client.log_inputs(run_id, inputs)

    def upload(self, run_id: str, upload: Upload) -> None:
        """Copy a file or a folder to a run's artifacts; one that is gone by now is refused."""
        path = Path(upload.path)
        if not path.exists():
            raise WriteRefused(f"{path} is gone before it could be copied to MLflow")
        with translated(remote=self._remote):
            if path.is_dir():
                self._client.log_artifacts(run_id, upload.path, upload.folder)
            else:
                self._client.log_artifact(run_id, upload.path, upload.folder)

    def upload_json(self, run_id: str, document: Mapping[str, Any], name: str) -> None:
        """Keep plain data as a JSON artifact of a run."""
        with translated(remote=self._remote):
            self._client.log_dict(run_id, dict(document), name)

    def upload_text(self, run_id: str, text: str, name: str) -> None:
        """Keep a text as an artifact of a run."""
        with translated(remote=self._remote):
            self._client.log_text(run_id, text, name)

    def set_state(self, run_id: str, state: State) -> None:
        """Set a run RUNNING, or end it."""
        with translated(remote=self._remote):
            if state.status == RUNNING:
                self._client.update_run(run_id, status=RUNNING)
            else:
                self._client.set_terminated(run_id, state.status, state.time_ms)

    def tag_experiment(self, name: str, value: str) -> None:
        """Set a tag of the experiment."""
        with translated(remote=self._remote):
            self._client.set_experiment_tag(self.experiment_id, name, value)


def _described(run: Run) -> tuple[str, str | None, KnownRun]:
    tags = run.data.tags
    latest = ((point.key, point.timestamp, point.step) for point in run.data.to_proto().metrics)
    known = KnownRun(str(run.info.run_id), str(run.info.status), frozenset(latest))
    return tags.get("kind", ""), tags.get("trial_id"), known


def _chunks(items: Sequence[_T], size: int) -> Iterator[list[_T]]:
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk
