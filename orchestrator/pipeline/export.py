"""The last stages: export the champion, register it, and write summary and report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from orchestrator.config.paths import CHAMPION_FOLDER
from orchestrator.pipeline.basis.basis import Basis
from orchestrator.pipeline.context import Run
from orchestrator.pipeline.shipped.further_files import further_files, more_formats
from orchestrator.pipeline.shipped.more_exports import measure_onnx
from orchestrator.records.costs import StudentCosts
from orchestrator.records.exported_files import Exported
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.selection import SelectedChampion, seed_of
from orchestrator.tracking.faults.errors import StoreAway, WriteRefused
from orchestrator.tracking.recorder import MlflowRecorder
from orchestrator.tracking.registry import register_champion
from trainables.config import DataConfig, ModelConfig, TrialSpec, digest_of
from trainables.config.data import SplitFacts
from trainables.data import TrainingData, load_training
from trainables.errors import StillhouseError
from trainables.export.formats import VERIFIED_IMAGES, export_student
from trainables.export.model_card import (
    CARD_FILE,
    Architecture,
    ExportedFile,
    Preparation,
    Resizing,
    read_intact_card,
)
from trainables.models import build_model
from trainables.models.weights import load_weights
from trainables.views.normalise import normalise

SAMPLE_IMAGES = 64
LEAST_IMAGES = 2
FLUSH_S = 120.0


@dataclass(frozen=True)
class ChampionFigures:
    """What the run found of the champion."""

    metrics: Mapping[str, float]
    costs: StudentCosts


def export_stage(
    run: Run,
    champion: SelectedChampion,
    basis: Basis,
    *,
    cache: str | None,
    figures: ChampionFigures,
    aware: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The champion's files: {"folder", "card", "files", "refused"}.

    "files" has of each format what `Exported` tells; "refused", of formats that were asked for, why not.
    `aware` is what `aware_stage` made of it.
    """
    record, split = champion.record, basis.split
    folder = run.out / CHAMPION_FOLDER
    more = more_formats(run, aware)
    metrics, costs = figures.metrics, figures.costs
    facts = _facts(run, record, basis, cache=cache, metrics=metrics) | _measured(costs, record, split)

    def export() -> dict[str, Any]:
        run.console.info("writing safetensors, ONNX and torch.export; each is reloaded and compared")
        data = load_training(run.experiment.data.labelled)
        files = _three_formats(record, split, folder, data, _in_part(facts, data))
        made, refused = further_files(
            run, folder, data, aware, lambda: _build(TrialSpec.from_plain(record.spec).student, split)
        )
        every = {name: _exported(folder, file) for name, file in [*files.items(), *made.items()]}
        card = str(folder / CARD_FILE)
        return {"folder": str(folder), "card": card, "files": every, "refused": refused}

    # Without a known device, the key is that of earlier versions: what they exported is not exported again.
    places = [record.checkpoint and run.key_path(record.checkpoint), run.key_path(str(folder))]
    inputs = [record.trial, places[0], dict(metrics), places[1], *_latency(costs).values()]
    key = digest_of([*inputs, *more, *([aware.get("key")] if aware else [])])
    return run.stages.run(
        "export", key, export, still_valid=lambda found: _holds(folder, record.trial, metrics, found)
    )


def _three_formats(
    record: TrialRecord, split: SplitFacts, folder: Path, data: TrainingData, facts: dict[str, Any]
) -> dict[str, ExportedFile]:
    """The files that every champion has, in its folder."""
    student = TrialSpec.from_plain(record.spec).student
    model = _build(student, split)
    load_weights(model, Path(record.checkpoint or ""))
    summary = export_student(
        model,
        rebuild=lambda: _build(student, split),
        folder=folder,
        input_shape=split.input_shape,
        sample_images=sample_images(data, VERIFIED_IMAGES),
        card=facts,
    )
    return {**summary.files, "onnx": measure_onnx(folder)}


def _holds(folder: Path, trial: str, metrics: Mapping[str, float], found: Mapping[str, Any]) -> bool:
    """Whether the files of this champion are there and intact: not those of another that was picked since."""
    card = read_intact_card(folder)
    if card is None or (card.lineage.trial_id, card.metrics) != (trial, dict(metrics)):
        return False
    return set(found.get("files", {})) <= set(card.files)


def _exported(folder: Path, file: ExportedFile) -> dict[str, Any]:
    """What the summary tells of a file."""
    plain = file.plain()
    told = {name: plain[name] for name in Exported.model_fields if name in plain}
    return {"path": str(folder / file.file), **told}


def _in_part(facts: dict[str, Any], data: TrainingData) -> dict[str, Any]:
    """The facts, with how JPEGs of a part that stays in its files were decoded."""
    if data.selection.files is None:
        return facts
    return {**facts, "preparation": {**facts["preparation"], "jpeg_in_part": True}}


def register_stage(
    run: Run,
    recorder: MlflowRecorder,
    champion: SelectedChampion,
    *,
    tracking_uri: str,
    lineage: Mapping[str, str],
) -> dict[str, Any]:
    """The champion in MLflow's model registry: {"model", "version", "experiment_id", "parent_run_id"}.

    Where MLflow does not take it, `lacks` says why, and running again tries again: it is no reason to
    withhold the results.
    """
    trial = champion.record.trial
    name = run.experiment.pick.model_name or f"stillhouse-{run.experiment.name}"

    left = recorder.flush(FLUSH_S)

    def register() -> dict[str, Any]:
        run_id = recorder.run_id(trial)
        if run_id is None:
            raise StoreAway(f"MLflow has no run of the champion {trial}: {left}")
        version = register_champion(
            tracking_uri, model_name=name, run_id=run_id, exported=run.out / "champion", tags=lineage
        )
        return {
            "model": name,
            "version": version,
            "experiment_id": recorder.experiment_id,
            "parent_run_id": recorder.parent_run_id,
        }

    key = digest_of([run.key_path(tracking_uri), name, trial, dict(lineage)])

    def is_there(found: dict[str, Any]) -> bool:
        """Not in a store that was made anew, nor with its alias moved on; a store may not answer."""
        runs = (None, found.get("parent_run_id"))
        has_alias = run.stages.is_latest("register", key)
        return has_alias and not recorder.began_anew and _place(recorder)["parent_run_id"] in runs

    try:
        return run.stages.run("register", key, register, still_valid=is_there)
    except (StoreAway, WriteRefused) as error:
        return {"model": None, "version": None, **_place(recorder), "lacks": str(error)}


def _place(recorder: MlflowRecorder) -> dict[str, str | None]:
    """Where the record is; nothing where MLflow could not be asked."""
    try:
        return {"experiment_id": recorder.experiment_id, "parent_run_id": recorder.parent_run_id}
    except StillhouseError:
        return {"experiment_id": None, "parent_run_id": None}


def _build(student: ModelConfig, split: SplitFacts) -> nn.Module:
    return build_model(student, n_classes=len(split.classes), in_channels=split.input_shape[0])


def sample_images(data: TrainingData, count: int = SAMPLE_IMAGES) -> torch.Tensor:
    """What exported files are compared on: selection images, and a training image where there is but one."""
    images = data.selection.images[:count]
    if len(images) < LEAST_IMAGES:
        images = torch.cat([images, data.train.images[:1]])
    return normalise(images, data.mean, data.std)


def _latency(costs: StudentCosts) -> dict[str, Any]:
    """The card's latency; nothing where a ledger of an earlier version does not know its device."""
    if costs.latency_p95_ms is None or costs.latency_device is None:
        return {}
    latency: dict[str, Any] = {"median_ms": costs.latency_ms, "p95_ms": costs.latency_p95_ms}
    latency |= {"device": costs.latency_device}
    if costs.latency_threads is not None:
        latency["threads"] = int(costs.latency_threads)
    if costs.latency_64_ms is not None:
        latency["batch_64_median_ms"] = costs.latency_64_ms
        latency["batch_64_p95_ms"] = costs.latency_64_p95_ms
    return {"latency": latency}


def _measured(costs: StudentCosts, record: TrialRecord, split: SplitFacts) -> dict[str, Any]:
    architecture = Architecture(
        network=TrialSpec.from_plain(record.spec).student,
        n_classes=len(split.classes),
        in_channels=split.input_shape[0],
        parameters=int(costs.params),
    )
    return {"architecture": architecture.plain(), **_latency(costs)}


def preparation(data: DataConfig, input_shape: tuple[int, int, int]) -> Preparation:
    """How images of this data set become arrays of the student's input shape (channels, height, width)."""
    channels = {1: "grey", 3: "RGB"}.get(input_shape[0]) if data.factory is None else None
    side = data.image_size
    shorter = None if data.resize == "stretch" else data.resize or side
    resizing = None if side is None else Resizing(shorter_side=shorter, centre_crop=side)
    return Preparation(channels=channels or "as the data set's factory gives them", resizing=resizing)


def _facts(
    run: Run, record: TrialRecord, basis: Basis, *, cache: str | None, metrics: Mapping[str, float]
) -> dict[str, Any]:
    split, start = basis.split, run.start
    return {
        "classes": list(split.classes),
        "normalisation": {"mean": list(split.mean), "std": list(split.std)},
        "preparation": preparation(run.experiment.data, split.input_shape).plain(),
        "metrics": dict(metrics),
        "lineage": {
            **({"teacher": basis.known_by.fingerprint} if basis.known_by else {}),
            "cache": cache,
            "trial_id": record.trial,
            "objective": record.objective,
            "hyper_parameters": record.parameters,
            "seed": seed_of(record),
            **({"start": start.sha256} if start else {}),
        },
        **({"precision": record.precision} if record.precision else {}),
    }
