"""The formats that an experiment asks for beside those that every champion has, and what they reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from torch import nn

from orchestrator.pipeline.context import Run
from orchestrator.pipeline.shipped.labelled_images import SplitOfExperiment
from orchestrator.pipeline.shipped.more_exports import MoreFormat, add_formats
from trainables.config.data import SourcePart
from trainables.data import TrainingData
from trainables.export.model_card import ExportedFile
from trainables.export.stated import FILES, document_of
from trainables.models.fake_quantised.network import load_fake_quantised

_SHORT: Final[Mapping[str, str]] = MappingProxyType(
    {"onnx": "onnx", "onnx_int8": "int8", "onnx_int8_aware": "int8_aware"}
)
_TIMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "latency_ms": "batch_1_median_ms",
        "latency_p95_ms": "batch_1_p95_ms",
        "latency_64_ms": "batch_64_median_ms",
        "latency_64_p95_ms": "batch_64_p95_ms",
    }
)


def more_formats(run: Run, aware: Mapping[str, Any] | None) -> list[MoreFormat]:
    """The formats that the experiment asks for beside those that every champion has."""
    asked = run.experiment.export
    found: list[MoreFormat] = ["onnx_int8"] if asked.int8 else []
    if aware is not None and "refused" not in aware:
        found.append("onnx_int8_aware")
    return [*found, "onnx_with_preprocessing"] if asked.with_preprocessing else found


def further_files(
    run: Run,
    folder: Path,
    data: TrainingData,
    aware: Mapping[str, Any] | None,
    build: Callable[[], nn.Module],
) -> tuple[dict[MoreFormat, ExportedFile], dict[MoreFormat, str]]:
    """These formats of the student in the folder; one that has no such form is exported all the same.

    `aware` is what `aware_stage` made of it, `build` gives a network of its architecture.
    """
    more = more_formats(run, aware)
    refused: dict[MoreFormat, str] = {}
    if aware is not None and "refused" in aware:
        refused["onnx_int8_aware"] = str(aware["refused"])
    trained = None if aware is None else partial(_trained, aware, build)
    made, others = _made(run, folder, data, more, trained)
    refused |= others
    for name, why in refused.items():
        run.console.info(f"no {name}: {why}")
    return made, refused


def _trained(aware: Mapping[str, Any], build: Callable[[], nn.Module]) -> nn.Module:
    """The student as it was trained for int8."""
    network = build()
    load_fake_quantised(network, Path(aware["weights"]))
    return network


def _made(
    run: Run,
    folder: Path,
    data: TrainingData,
    more: Sequence[MoreFormat],
    trained: Callable[[], nn.Module] | None,
) -> tuple[dict[MoreFormat, ExportedFile], dict[MoreFormat, str]]:
    if not more:
        return {}, {}
    document = document_of(folder / FILES["onnx"])
    config = run.experiment.data.labelled
    images = SplitOfExperiment(
        "the selection split", config, SourcePart.TRAIN, data.selection, data.classes, document
    )
    return add_formats(folder, more, images, trained)


def shipped_figures(exported: Mapping[str, Any]) -> dict[str, float]:
    """What the exported files cost and reach, by short names: ONNX Runtime's latency, and int8's too."""
    figures: dict[str, float] = {}
    for name, short in _SHORT.items():
        file = exported["files"].get(name, {})
        if file.get("accuracy") is not None:
            figures[f"{short}_accuracy"] = float(file["accuracy"])
        latency = file.get("latency") or {}
        figures |= {
            f"{short}_{key}": float(latency[field]) for key, field in _TIMES.items() if field in latency
        }
    return figures
