"""A champion that comes back after another was picked: the files are its own, and so is the alias."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from orchestrator.config.sections.export import ExportConfig
from orchestrator.pipeline import export
from orchestrator.pipeline.stages import Stages
from orchestrator.records.ledger import Ledger
from orchestrator.terminal.console import Console
from trainables.export.formats import ExportSummary
from trainables.export.model_card import (
    Comparison,
    ExportedFile,
    ModelCard,
    describe_file,
    read_intact_card,
    write_card,
)

METRICS = {"selection_accuracy": 0.9}


@pytest.fixture
def run(tmp_path: Path) -> Any:
    ledger = Ledger(tmp_path)
    experiment = SimpleNamespace(
        name="x",
        pick=SimpleNamespace(model_name=None),
        data=SimpleNamespace(labelled=None),
        export=ExportConfig(),
    )
    console = Console(json_only=True)
    return SimpleNamespace(
        out=tmp_path,
        experiment=experiment,
        console=console,
        stages=Stages(ledger, console),
        key_path=lambda place: place,
    )


def champion(trial: str) -> Any:
    return SimpleNamespace(record=SimpleNamespace(trial=trial, checkpoint=f"{trial}.safetensors", spec={}))


def written(folder: Path, card: dict[str, Any]) -> ExportSummary:
    """What stands where the exporter would: one file, which holds whose it is, and its card."""
    folder.mkdir(exist_ok=True)
    file = folder / "student.safetensors"
    file.write_text(card["trial"])
    files = {"onnx": describe_file(file, Comparison(max_abs_difference=0.0, agreement=1.0, images=2))}
    lineage = {"teacher": None, "cache": None, "trial_id": card["trial"], "objective": "ce", "seed": 0}
    plain = {
        "classes": ["a", "b"],
        "normalisation": {"mean": [0.5], "std": [0.5]},
        "metrics": METRICS,
        "lineage": {**lineage, "hyper_parameters": {}},
        "identity": card["trial"],
        "input_shape": [1, 4, 4],
        "onnx_opset": 18,
        "files": {name: entry.plain() for name, entry in files.items()},
        "versions": {},
    }
    write_card(folder, ModelCard.from_plain(plain))
    return ExportSummary(folder, folder / "model_card.json", files)


def _only_file(folder: Path) -> ExportedFile:
    card = read_intact_card(folder)
    assert card is not None
    return card.files["onnx"]


@pytest.mark.parametrize("trials", ["ABA", "AA"])
def test_the_files_in_the_folder_are_those_of_the_champion_asked_for(
    run: Any, monkeypatch: pytest.MonkeyPatch, trials: str
) -> None:
    exported: list[str] = []

    def export_student(*_: object, folder: Path, card: dict[str, Any], **__: object) -> ExportSummary:
        exported.append(card["trial"])
        return written(folder, card)

    monkeypatch.setattr(export, "export_student", export_student)
    monkeypatch.setattr(
        export, "TrialSpec", SimpleNamespace(from_plain=lambda _: SimpleNamespace(student=None))
    )
    monkeypatch.setattr(export, "_facts", lambda _, record, *__, **___: {"trial": record.trial})
    for name in ("_measured", "_latency"):
        monkeypatch.setattr(export, name, lambda *_: {})
    for name in ("_build", "load_weights", "load_training", "sample_images"):
        monkeypatch.setattr(export, name, lambda *_: None)
    monkeypatch.setattr(export, "_in_part", lambda facts, _: facts)
    monkeypatch.setattr(export, "measure_onnx", lambda folder: _only_file(folder))
    basis: Any = SimpleNamespace(split=SimpleNamespace(input_shape=(1, 4, 4)))
    figures = export.ChampionFigures(METRICS, cast(Any, None))
    for trial in trials:
        export.export_stage(run, champion(trial), basis, cache=None, figures=figures)
        assert (run.out / "champion" / "student.safetensors").read_text() == trial
    assert "".join(exported) == ("A" if trials == "AA" else trials)


def test_the_alias_is_with_the_champion_asked_for(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    alias: list[str] = []

    def register_champion(*_: object, run_id: str, **__: object) -> str:
        alias.append(run_id)
        return "1"

    monkeypatch.setattr(export, "register_champion", register_champion)
    recorder: Any = SimpleNamespace(
        flush=lambda _: "", run_id=str, experiment_id="1", parent_run_id="p", began_anew=False
    )
    for trial in "AABA":
        lineage = {"trial_id": trial}
        export.register_stage(run, recorder, champion(trial), tracking_uri="sqlite:///x", lineage=lineage)
        assert alias[-1] == trial
    assert "".join(alias) == "ABA"
