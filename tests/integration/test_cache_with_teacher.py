"""`stillhouse cache` beside a real teacher and real Ray: plan, grow, repair, and runs on brought logits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cluster.session import connect
from orchestrator.cli import app
from orchestrator.config.loading import load_experiment
from orchestrator.config.paths import out_folder
from orchestrator.pipeline.cache_stage import complete_cache
from orchestrator.pipeline.context import Run
from orchestrator.pipeline.stages import Stages
from orchestrator.pipeline.teacher_stage import teacher_stage
from orchestrator.pipeline.workers import Workers
from orchestrator.records.ledger import Ledger
from orchestrator.terminal.console import Console
from trainables.config import DataConfig, DataName
from trainables.data import load_training

pytestmark = pytest.mark.ray

EXPERIMENT = """\
name: task
out: OUT
data: {name: digits, train_limit: 200}
teacher: {model: {name: mlp}, training: {epochs: 2}}
student: {name: mlp, width: 8}
views: {weak: {views: 2, recipe: [{op: crop_flip, padding: 1, flip_probability: 0}]}}
training: {epochs: 1, precision: fp32}
space: SPACE
budget: {trials: 1, finalists: 1, seeds: 1}
cluster: {slots: 1}
cache: {rows_per_shard: 100}
"""
SPACE = "name: space\nobjectives: {kd: {}}\ntraining: {lr: {uniform: [0.01, 0.1]}}\n"
FILE = "bank=weak/view=0001/shard-00001.parquet"


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    with connect("local", cpus=2):
        yield


def experiment_in(folder: Path, text: str = EXPERIMENT) -> str:
    (folder / "space.yaml").write_text(SPACE)
    path = folder / "task.yaml"
    path.write_text(text.replace("OUT", str(folder / "out")).replace("SPACE", str(folder / "space.yaml")))
    return str(path)


@pytest.fixture(scope="module")
def made(session: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An experiment whose teacher and cache are made."""
    file = experiment_in(tmp_path_factory.mktemp("made"))
    loaded, console = load_experiment(file), Console()
    out = out_folder(loaded)
    ledger = Ledger(out)
    with Workers(loaded.config, out, console) as workers:
        run = Run(loaded, out, ledger, Stages(ledger, console), workers, console)
        complete_cache(run, teacher_stage(run))
    ledger.close()
    return file


def told(*words: object) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert done.exit_code == 0, (done.output, done.exception)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def files_in(file: str) -> dict[str, tuple[int, bytes]]:
    folder = next((Path(file).parent / "out" / "cache").iterdir())
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*.parquet")
    }


def test_a_plan_times_the_teacher_and_tells_what_precisions_lose(made: str) -> None:
    plan = told("cache", "plan", made)
    assert (plan["rows"], plan["rows_to_compute"], plan["bytes_to_write"]) == (400, 0, 0)
    assert plan["teacher_images_per_s"] > 10
    losses = {(row["precision"], row["temperature"]): row["mean_kl"] for row in plan["precisions"]}
    assert set(losses) == {(name, t) for name in ("fp16", "fp32", "int8") for t in (1.0, 4.0)}
    assert losses["fp32", 1.0] == 0 < losses["fp16", 1.0] < losses["int8", 1.0] < 1e-3


def test_a_plan_of_another_bank_and_of_more_views_counts_only_what_is_missing(made: str) -> None:
    another = told("cache", "plan", made, "--space", "crld")
    assert (another["rows"], another["rows_to_compute"]) == (600, 200)
    grown = Path(made).with_name("grown.yaml")
    grown.write_text(Path(made).read_text().replace("views: {", "views: {strong: {views: 3}, "))
    more = told("cache", "plan", grown, "--space", "crld")
    assert (more["rows"], more["rows_to_compute"]) == (1000, 600)


def test_a_flipped_bit_is_found_named_and_rebuilt_alone(made: str) -> None:
    sound = told("cache", "verify", made, "--deep")
    assert (sound["ok"], sound["proof"]["pairs"]) == (True, 64)
    before = files_in(made)
    path = next((Path(made).parent / "out" / "cache").iterdir()) / FILE
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    mended = told("cache", "verify", made, "--deep", "--repair")
    assert [(finding["fault"], finding["file"]) for finding in mended["findings"]] == [("altered", FILE)]
    assert (mended["ok"], mended["left"], mended["proof"]["pairs"]) == (True, [], 64)
    after = files_in(made)
    assert {name for name in before if after[name][0] != before[name][0]} == {FILE}
    assert after[FILE][1] == before[FILE][1]


@pytest.mark.mlflow
@pytest.mark.slow
def test_a_run_on_brought_logits_has_no_teacher_to_run(session: None, tmp_path: Path) -> None:
    brought = EXPERIMENT.replace("{model: {name: mlp}, training: {epochs: 2}}", "{imported: true}")
    views = "[{op: crop_flip, padding: 1, flip_probability: 0}]"
    file = experiment_in(tmp_path, brought.replace(views, "[]").replace("views: 2", "views: 1"))
    train = load_training(DataConfig(name=DataName.DIGITS, train_limit=200)).train
    logits = 5 * np.eye(10, dtype=np.float32)[train.labels.numpy()]
    np.savez(tmp_path / "logits.npz", ids=train.ids.numpy(), logits=logits)
    assert told("cache", "import", tmp_path / "logits.npz", file)["accuracy"] == 1
    before = files_in(file)
    summary = told("run", file)
    assert {"params", "selection_accuracy", "test_accuracy", "latency_ms"} <= summary["teacher"].keys()
    assert set(summary["teacher"].values()) == {None}  # a network would be needed to know any of it
    assert [trial["objective"] for trial in summary["trials"]] == ["kd"]
    assert files_in(file) == before
    assert [path.name for path in (tmp_path / "out" / "teacher").iterdir()] == ["imported.json"]
