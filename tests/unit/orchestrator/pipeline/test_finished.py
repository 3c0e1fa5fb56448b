from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.config.loading import LoadedExperiment, load_experiment
from orchestrator.pipeline.finished import STAGE, finished_summary, run_key, show
from orchestrator.records.events import StageEvent
from orchestrator.records.ledger import Ledger
from orchestrator.records.places import summary_as_read
from orchestrator.records.summary import Summary, write_summary
from orchestrator.terminal.console import Console


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedExperiment:
    digits = load_experiment("digits")
    return replace(digits, config=digits.config.with_overrides(out=str(tmp_path / "out")))


@pytest.fixture
def shipped(summary: Summary, tmp_path: Path) -> Summary:
    """The summary of a run whose exported files are there."""
    exports = {}
    for name, exported in summary.champion.exports.items():
        path = tmp_path / "out" / exported.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")
        exports[name] = exported.with_overrides(path=str(path))
    shipped = summary.with_overrides(champion=summary.champion.with_overrides(exports=exports))
    return Summary.from_plain(summary_as_read(shipped.plain(), tmp_path / "out"))


def finish(loaded: LoadedExperiment, summary: Summary) -> None:
    out = Path(str(loaded.config.out))
    ledger = Ledger(out)
    key = run_key(loaded, ledger)
    ledger.append(StageEvent(stage=STAGE, key=key, status="finished", seconds=0.0, result={}))
    ledger.close()
    write_summary(out / "summary.json", summary)


def changed(loaded: LoadedExperiment) -> LoadedExperiment:
    return replace(loaded, config=loaded.config.with_overrides(seed=99))


def test_a_finished_run_is_known_by_its_summary(loaded: LoadedExperiment, shipped: Summary) -> None:
    finish(loaded, shipped)
    assert finished_summary(loaded) == shipped


def test_a_run_that_never_began_leaves_no_trace(loaded: LoadedExperiment) -> None:
    assert finished_summary(loaded) is None
    assert not Path(str(loaded.config.out)).exists()


def test_a_run_that_is_not_finished_has_no_summary(loaded: LoadedExperiment, shipped: Summary) -> None:
    finish(changed(loaded), shipped)
    assert finished_summary(loaded) is None


def test_a_summary_that_a_changed_file_has_replaced_is_not_this_runs(
    loaded: LoadedExperiment, shipped: Summary
) -> None:
    finish(loaded, shipped)
    finish(changed(loaded), shipped)
    assert finished_summary(loaded) is None
    finish(loaded, shipped)
    assert finished_summary(loaded) == shipped


@pytest.mark.parametrize("text", [None, "", "{", '{"experiment": "digits"}'])
def test_a_summary_that_is_gone_or_damaged_is_written_again_by_the_run(
    loaded: LoadedExperiment, shipped: Summary, text: str | None
) -> None:
    finish(loaded, shipped)
    path = Path(str(loaded.config.out)) / "summary.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    assert finished_summary(loaded) is None


def test_a_run_whose_exported_files_are_gone_is_not_finished(
    loaded: LoadedExperiment, shipped: Summary
) -> None:
    finish(loaded, shipped)
    Path(shipped.champion.exports["onnx"].path).unlink()
    assert finished_summary(loaded) is None


def test_asking_does_not_touch_the_ledger_of_a_run_in_progress(
    loaded: LoadedExperiment, shipped: Summary
) -> None:
    finish(loaded, shipped)
    path = Path(str(loaded.config.out)) / "ledger.jsonl"
    path.write_bytes(path.read_bytes() + b'{"seq":1,"kind":"half wr')
    before = path.read_bytes()
    assert finished_summary(loaded) == shipped
    assert path.read_bytes() == before


def test_both_files_and_the_teachers_checkpoint_make_a_run(loaded: LoadedExperiment, tmp_path: Path) -> None:
    checkpoint = tmp_path / "teacher.safetensors"
    teacher = loaded.config.teacher.with_overrides(checkpoint=str(checkpoint))
    loads = replace(loaded, config=loaded.config.with_overrides(teacher=teacher))
    other_space = replace(loaded, space=load_experiment("digits").space.with_overrides(name="other"))
    ledger = Ledger(tmp_path)
    keys = [run_key(choice, ledger) for choice in (loaded, changed(loaded), other_space, loads)]
    checkpoint.write_bytes(b"weights")
    keys.append(run_key(loads, ledger))
    checkpoint.write_bytes(b"other weights")
    keys.append(run_key(loads, ledger))
    assert len(set(keys)) == len(keys)
    assert run_key(load_experiment("digits"), ledger) == keys[0]  # wherever the output folder is


def test_the_end_shows_on_what_a_latency_was_measured(measured: Summary) -> None:
    said = io.StringIO()
    show(measured, Console(out=said), ui_command="stillhouse ui digits")
    assert "9,610 parameters, 0.125 ms (p95 0.180 ms, on Intel Xeon)\n" in said.getvalue()


def test_the_end_shows_the_champion_its_files_and_the_way_to_mlflow(summary: Summary) -> None:
    said = io.StringIO()
    show(summary, Console(out=said), ui_command="stillhouse ui digits")
    text = said.getvalue()
    for part in (
        "Selection is the accuracy of a student's best epoch on the selection split",
        "champion: finalist 1, kd, 9,610 parameters, 0.125 ms\n",
        "onnx: champion/student.onnx (max difference 1.5e-06)",
        "card: champion/model_card.json",
        "report: out/digits/report.html",
        "ranked runs in MLflow: stillhouse ui digits",
    ):
        assert part in text
