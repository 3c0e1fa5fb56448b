"""`stillhouse cache` on a small imported cache, which needs neither a teacher nor Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from orchestrator.cache_tools.owner import target_of
from orchestrator.cli import app
from orchestrator.config.loading import load_experiment
from orchestrator.pipeline.context import quiet_run
from orchestrator.pipeline.teacher_stage import known_teacher
from orchestrator.terminal.console import Console
from tests.unit.trainables.cache.tiny_caches import TinyCache, random_data, tiny_teacher
from trainables.cache.format.storage import Place
from trainables.cache.node.reader import open_cache
from trainables.config import DataConfig, DataName, ModelConfig, ModelName
from trainables.data import load_training
from trainables.data.splits import split_facts
from trainables.errors import CacheError, ConfigError, DataError, StillhouseError
from trainables.models import build_model
from trainables.models.weights import save_weights

COMMANDS = ("plan", "verify", "info", "show", "export", "gc", "import")
DATA = DataConfig(name=DataName.DIGITS, train_limit=120)
EXPERIMENT = """\
name: task
out: OUT
data: {name: digits, train_limit: 120}
teacher: {imported: true}
student: {name: mlp}
views: {weak: {views: 1, recipe: []}}
space: kd
cache: {rows_per_shard: 50}
"""
NETWORK = "teacher: {model: {name: mlp}, training: {epochs: 1}}"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An experiment with imported logits; the node's copies of caches lie in a folder of the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "node"))
    (tmp_path / "node").mkdir()
    path = tmp_path / "task.yaml"
    path.write_text(EXPERIMENT.replace("OUT", str(tmp_path / "out")))
    return str(path)


@pytest.fixture
def logits(tmp_path: Path) -> Path:
    data = load_training(DATA)
    values = np.random.default_rng(0).normal(size=(120, 10)).astype(np.float32)
    values[np.arange(120), data.train.labels.numpy()] += 4
    np.savez(tmp_path / "logits.npz", ids=data.train.ids.numpy(), logits=values)
    return tmp_path / "logits.npz"


def cache(*words: object) -> Result:
    return CliRunner().invoke(app, ["cache", *map(str, words)])


def told(*words: object) -> dict[str, Any]:
    """The JSON of a command that is expected to succeed."""
    done = cache(*words, "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def refused(kind: type[StillhouseError], *words: object) -> str:
    done = cache(*words)
    assert isinstance(done.exception, kind), (done.output, done.exception)
    return str(done.exception)


def folder_of(file: str) -> Path:
    (folder,) = (Path(file).parent / "out" / "cache").iterdir()
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_cache_command_shows_an_example(command: str) -> None:
    done = cache(command, "--help")
    assert done.exit_code == 0
    assert f"Example: stillhouse cache {command}" in done.output


def test_brought_logits_are_verified_told_shown_and_exported(file: str, logits: Path, tmp_path: Path) -> None:
    brought = told("import", logits, file)
    assert brought["files"] == 3
    assert told("import", logits, file)["files"] == 0
    sound = told("verify", file, "--deep")
    assert (sound["ok"], sound["files"], sound["findings"], sound["proof"]["pairs"]) == (True, 3, [], 0)
    (bank,) = told("info", folder_of(file))["banks"]
    assert (bank["bank"], bank["rows"], bank["accuracy"]) == ("weak", 120, brought["accuracy"])
    table = cache("info", file, "--views")
    assert "unaltered" in table.output
    assert "view 0" in table.output

    sample = int(load_training(DATA).train.ids[3])
    picture = tmp_path / "sample.png"
    shown = told("show", file, "--sample", sample, "--to", picture)
    assert next(iter(shown["views"][0]["top"])) == shown["label"]
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert len(np.unique(np.asarray(image.convert("L")))) > 16

    table_file = tmp_path / "plain.csv"
    assert told("export", file, table_file, "--bank", "weak")["rows"] == 120
    frame = pd.read_csv(table_file)
    assert (frame["teacher_top1"] == frame["label"]).mean() == pytest.approx(brought["accuracy"])


def test_a_run_finds_the_teacher_that_was_brought_and_its_cache(file: str, logits: Path) -> None:
    brought = told("import", logits, file)
    loaded = load_experiment(file)
    with quiet_run(loaded, Console()) as run:
        teacher = known_teacher(run)
    assert teacher is not None
    assert (teacher.fingerprint, teacher.weights) == (brought["teacher"], None)
    with target_of(loaded, Console()) as target:
        assert open_cache(target.place.uri).identity.teacher == teacher.fingerprint


def test_damage_is_named_with_exit_code_1_and_mended_by_importing_again(file: str, logits: Path) -> None:
    told("import", logits, file)
    name = "bank=weak/view=0000/shard-00001.parquet"
    (folder_of(file) / name).unlink()
    (folder_of(file) / "notes.txt").write_text("mine")
    done = cache("verify", file, "--json")
    assert done.exit_code == 1
    assert [(f["fault"], f["file"]) for f in json.loads(done.stdout)["findings"]] == [
        ("missing", name),
        ("foreign file", "notes.txt"),
    ]
    assert f"missing: {name}" in cache("verify", folder_of(file)).output
    message = refused(CacheError, "verify", folder_of(file), "--repair")
    assert "give the experiment instead of the place" in message
    (folder_of(file) / "notes.txt").unlink()
    assert told("import", logits, file)["files"] == 1
    assert cache("verify", file, "--deep").exit_code == 0


def test_probabilities_are_imported_when_they_are_said_to_be_such(file: str, logits: Path) -> None:
    with np.load(logits) as brought:
        ids, exp = brought["ids"], np.exp(brought["logits"])
    np.savez(logits, ids=ids, logits=(exp / exp.sum(1, keepdims=True)).astype(np.float16))
    assert "in 120 of 120 rows" in refused(DataError, "import", logits, file)
    assert not (Path(file).parent / "out").exists()
    assert told("import", logits, file, "--values", "probabilities")["values"] == "probabilities"
    assert told("verify", file, "--deep")["ok"]
    manifest = json.loads((folder_of(file) / "_manifest.json").read_text())
    assert manifest["versions"] == {"imported": logits.name, "values": "probabilities"}


def test_objectives_that_compare_logits_themselves_are_named_with_probabilities(
    file: str, logits: Path
) -> None:
    with np.load(logits) as brought:
        ids, exp = brought["ids"], np.exp(brought["logits"])
    np.savez(logits, ids=ids, logits=exp / exp.sum(1, keepdims=True))
    words = ("import", logits, file, "--values", "probabilities")
    assert "which ckd would not take off" in cache(*words, "--space", "ckd").output
    assert "would not take off" not in cache(*words).output


def test_a_stale_manifest_is_written_again_from_the_place_alone(file: str, logits: Path) -> None:
    told("import", logits, file)
    commit = folder_of(file) / "_commits" / "weak-0000-00000.json"
    record = json.loads(commit.read_text())
    commit.write_text(json.dumps({**record, "correct": record["correct"] - 1}))
    assert cache("verify", folder_of(file)).exit_code == 1
    mended = told("verify", folder_of(file), "--repair")
    assert (mended["ok"], [f["fault"] for f in mended["findings"]], mended["left"]) == (
        True,
        ["stale manifest"],
        [],
    )


def test_a_plan_before_any_run_counts_rows_and_bytes_and_leaves_no_trace(file: str) -> None:
    Path(file).write_text(Path(file).read_text().replace("teacher: {imported: true}", NETWORK))
    plan = told("plan", file)
    assert (plan["rows"], plan["rows_to_compute"], plan["teacher_images_per_s"]) == (120, 120, None)
    assert plan["bytes_to_write"] > 120 * 10 * 2
    assert "not made yet" in cache("plan", file).output
    assert not (Path(file).parent / "out").exists()


def test_a_plan_knows_a_teacher_that_only_has_to_be_loaded(file: str, tmp_path: Path) -> None:
    teacher = build_model(ModelConfig(name=ModelName.MLP, width=8), n_classes=10, in_channels=1)
    save_weights(teacher, tmp_path / "teacher.safetensors", {})
    weights = f"checkpoint: {tmp_path / 'teacher.safetensors'}, normalisation: data"
    known = f"teacher: {{model: {{name: mlp, width: 8}}, {weights}}}"
    Path(file).write_text(Path(file).read_text().replace("teacher: {imported: true}", known))
    plan = told("plan", file)
    assert (plan["rows_to_compute"], plan["teacher_s"]) == (120, 120 / plan["teacher_images_per_s"])
    losses = {(row["precision"], row["temperature"]): row["mean_kl"] for row in plan["precisions"]}
    assert set(losses) == {(name, t) for name in ("fp16", "fp32", "int8") for t in (1.0, 4.0)}
    assert losses["fp32", 4.0] == 0 < losses["fp16", 4.0] < losses["int8", 4.0]
    assert not (tmp_path / "out").exists()


def test_a_plan_of_what_the_disk_cannot_hold_is_refused(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(file).write_text(Path(file).read_text().replace("teacher: {imported: true}", NETWORK))
    monkeypatch.setattr(Place, "free_bytes", lambda _: 5_000)
    assert "has 5.0 kB free; free some space" in refused(CacheError, "plan", file)


def test_a_cache_of_a_teacher_that_is_not_made_yet_is_not_looked_for(file: str) -> None:
    Path(file).write_text(Path(file).read_text().replace("teacher: {imported: true}", NETWORK))
    for words in (["verify", file], ["info", file], ["show", file, "--sample", "1"]):
        assert "is not made yet" in refused(ConfigError, *words)


def test_an_experiment_whose_objectives_hear_no_teacher_has_no_cache(file: str, tmp_path: Path) -> None:
    (tmp_path / "ce.yaml").write_text(
        "name: ce\nobjectives: {ce: {}}\ntraining: {lr: {uniform: [0.1, 0.2]}}\n"
    )
    message = refused(ConfigError, "plan", file, "--space", tmp_path / "ce.yaml")
    assert "no objective of its space (ce) hears a teacher, whose answers it would keep" in message


def test_an_experiment_without_a_teacher_has_no_cache_and_no_logits(file: str, logits: Path) -> None:
    text = Path(file).read_text().replace("teacher: {imported: true}\n", "").replace("kd", "ce")
    Path(file).write_text(text)
    for words in (["plan", file], ["verify", file], ["info", file], ["show", file, "--sample", "1"]):
        assert "no objective of its space (ce) hears a teacher" in refused(ConfigError, *words)
    message = refused(ConfigError, "import", logits, file)
    assert "has no teacher whose logits these could be; write `teacher: {imported: true}`" in message


def test_logits_are_not_brought_to_an_experiment_with_a_network(file: str, logits: Path) -> None:
    Path(file).write_text(Path(file).read_text().replace("teacher: {imported: true}", NETWORK))
    assert "write `teacher: {imported: true}` in its place" in refused(ConfigError, "import", logits, file)


def test_the_files_of_a_place_are_looked_at_without_the_libraries_that_are_slow(
    file: str, logits: Path
) -> None:
    told("import", logits, file)
    code = (
        "import sys\nfrom orchestrator.cli import app\n"
        "for command in ('verify', 'info'):\n"
        f"    app(['cache', command, '{folder_of(file)}'], standalone_mode=False)\n"
        "print([name for name in ('torch', 'ray', 'mlflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "files are what the records say" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("place", ["/nowhere/cache", "file:///nowhere/cache"])
def test_a_place_without_a_cache_is_named(place: str) -> None:
    assert "there is no teacher cache at" in refused(CacheError, "verify", place)
    assert "there is no complete teacher cache at" in refused(CacheError, "info", place)


def test_a_place_alone_has_no_images_to_show(file: str, logits: Path) -> None:
    told("import", logits, file)
    assert "give the experiment" in refused(ConfigError, "show", folder_of(file), "--sample", "1")


def test_a_sample_of_another_split_is_refused_with_near_ones(file: str, logits: Path) -> None:
    told("import", logits, file)
    assert "allowed: ids of the training split (120 from" in refused(
        ConfigError, "show", file, "--sample", "99999"
    )


def test_copies_that_nobody_uses_are_cleaned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    copy = tmp_path / f"stillhouse-{os.getuid()}" / "cache" / ("a" * 64)
    copy.mkdir(parents=True)
    (copy / "logits.npy").write_bytes(bytes(1000))
    assert told("gc")["freed_bytes"] == 0
    assert told("gc", "--unused-days", "0", "--dry-run")["freed_bytes"] == 1000
    assert copy.exists()
    assert "1 of 1 copies removed, 1.0 kB" in cache("gc", "--unused-days", "0").output
    assert not copy.exists()


CONVNET = "teacher: {model: {name: convnet, width: 8}, training: {epochs: 1}}"


def test_a_plan_tells_of_each_part_and_of_maps_that_are_not_kept(file: str) -> None:
    Path(file).write_text(Path(file).read_text().replace("teacher: {imported: true}", CONVNET))
    plan = told("plan", file, "--space", "fitnet")
    assert [(part["bank"], part["part"], part["rows"]) for part in plan["parts"]] == [("weak", "logits", 120)]
    (wished,) = plan["not_kept"]
    assert (wished["bank"], wished["part"], wished["rows_to_compute"]) == ("weak", "stage2", 120)
    channels, height, width = wished["shape"]
    assert 0 < wished["bytes_to_write"] - 120 * channels * height * width * 2 < 10_000
    shown = cache("plan", file, "--space", "fitnet").output
    assert "the teacher runs beside the student for them" in " ".join(shown.split())

    settings = (
        Path(file).read_text().replace("{rows_per_shard: 50}", "{rows_per_shard: 50, features: [stage2]}")
    )
    Path(file).write_text(settings)
    named = told("plan", file, "--space", "fitnet")
    assert [part["part"] for part in named["parts"]] == ["logits", "stage2"]
    assert named["not_kept"] == []
    assert named["bytes_to_write"] > plan["bytes_to_write"] + 120 * channels * height * width * 2
    assert named["rows_to_compute"] == 120  # logits and map are one answer


def test_a_plan_refuses_maps_that_the_disk_cannot_hold(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = Path(file).read_text().replace("teacher: {imported: true}", CONVNET)
    Path(file).write_text(text)
    room = told("plan", file, "--space", "fitnet")["bytes_to_write"] + 20_000
    monkeypatch.setattr(Place, "free_bytes", lambda _: room)
    told("plan", file, "--space", "fitnet")
    Path(file).write_text(text.replace("{rows_per_shard: 50}", "{rows_per_shard: 50, features: [stage1]}"))
    assert "free some space" in refused(CacheError, "plan", file, "--space", "fitnet")


def test_a_feature_that_the_teacher_does_not_have_is_refused_with_those_it_has(file: str) -> None:
    text = Path(file).read_text().replace("teacher: {imported: true}", CONVNET)
    Path(file).write_text(text.replace("{rows_per_shard: 50}", "{features: [stage9]}"))
    assert "has no feature 'stage9'; it has" in refused(CacheError, "plan", file)


def test_features_are_told_verified_and_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data = random_data()
    kept: dict[str, tuple[str, ...]] = {"weak": ("embedding",), "teacher": ("classifier",)}
    tiny = TinyCache(tmp_path, data, tiny_teacher(), split_facts(data), features=kept)
    tiny.build()
    sound = told("verify", tiny.uri, "--deep")
    assert (sound["ok"], sound["files"]) == (True, 9 + 6 + 1)
    info = told("info", tiny.uri)
    features = {(one["bank"], one["feature"]): one["shape"] for one in info["features"]}
    assert features == {("weak", "embedding"): [288], ("teacher", "classifier"): [289]}
    assert all(one["bytes"] > 0 for one in info["features"])
    assert "embedding" in cache("info", tiny.uri).output
    table = tmp_path / "embedding.csv"
    assert told("export", tiny.uri, table, "--feature", "embedding")["rows"] == 80
    assert "embedding_287" in pd.read_csv(table).columns
    assert "allowed: embedding, classifier" in refused(
        ConfigError, "export", tiny.uri, table, "--feature", "stage2"
    )
