from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from orchestrator.records.events import ArtifactAdded, StageEvent, TrialEnded, TrialStarted
from orchestrator.records.ledger import Ledger
from orchestrator.records.places import KeyPaths, absolute, relative
from tests.older_runs.unpacking import unpack_older_run
from trainables.config import Role

OUT = Path("/a/out")


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("/a/out/teacher/teacher.safetensors", "teacher/teacher.safetensors"),
        ("/a/out", "."),
        ("sqlite:////a/out/mlflow.db", "sqlite:///mlflow.db"),
        ("/a/output/x", "/a/output/x"),
        ("/elsewhere/cache", "/elsewhere/cache"),
        ("s3://bucket/a/out/cache", "s3://bucket/a/out/cache"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
    ],
)
def test_what_lies_in_the_folder_is_written_relative_to_it_and_read_back(text: str, inside: str) -> None:
    assert relative(text, OUT) == inside
    assert absolute(inside, OUT) == text
    moved = absolute(inside, Path("/b/moved"))
    assert moved == text.replace("/a/out", "/b/moved") if inside != text else moved == text


def test_what_an_earlier_version_wrote_lies_below_the_folder_now() -> None:
    assert absolute("/then/out/cache/1", OUT, ("/then/out",)) == "/a/out/cache/1"
    assert absolute("/then/outside", OUT, ("/then/out",)) == "/then/outside"


def test_paths_in_a_list_of_parts_are_relative_too(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "then")
    part = {"kind": "branches", "weights": str(tmp_path / "then" / "teacher" / "branches.safetensors")}
    result = {"weights": str(tmp_path / "then" / "teacher" / "teacher.safetensors"), "prepared": [part]}
    ledger.append(StageEvent(stage="teacher", key="k", status="finished", seconds=1.0, result=result))
    ledger.close()
    shutil.move(tmp_path / "then", tmp_path / "now")
    moved = Ledger(tmp_path / "now")
    moved.close()
    (event,) = moved.events_of(StageEvent)
    assert event.found["prepared"][0]["weights"] == str(tmp_path / "now" / "teacher" / "branches.safetensors")


def recorded(folder: Path) -> Ledger:
    ledger = Ledger(folder)
    weights = {"weights": str(folder / "teacher" / "teacher.safetensors"), "params": 3}
    files = {"onnx": {"path": str(folder / "champion" / "student.onnx"), "max_abs_difference": 0.0}}
    exported = {"folder": str(folder / "champion"), "card": "/elsewhere/card.json", "files": files}
    for stage, result in (("teacher", weights), ("export", exported)):
        ledger.append(StageEvent(stage=stage, key="k", status="finished", seconds=1.0, result=result))
    ledger.append(
        TrialStarted(trial="t", role=Role.SEARCH, search="s", objective="kd", parameters={}, spec={})
    )
    ledger.append(
        TrialEnded(
            trial="t",
            status="completed",
            epochs=0,
            final={},
            reason=None,
            best_epoch=None,
            best={},
            checkpoint=str(folder / "students" / "t" / "best.safetensors"),
        )
    )
    ledger.append(ArtifactAdded(trial=None, path=str(folder / "report.html"), folder=None))
    return ledger


def test_a_ledger_names_no_absolute_place_in_its_folder(tmp_path: Path) -> None:
    ledger = recorded(tmp_path / "out")
    lines = [json.loads(line) for line in ledger.path.read_text().splitlines()]
    assert str(tmp_path) not in ledger.path.read_text()
    assert lines[0]["result"] == {"weights": "teacher/teacher.safetensors", "params": 3}
    assert (lines[3]["checkpoint"], lines[4]["path"]) == ("students/t/best.safetensors", "report.html")


def test_a_ledger_that_was_moved_names_the_files_where_they_are_now(tmp_path: Path) -> None:
    before = recorded(tmp_path / "out")
    shutil.copytree(tmp_path / "out", tmp_path / "copy")
    moved = Ledger(tmp_path / "copy")
    assert moved.former_place is None
    trial = moved.trial("t")
    assert trial is not None
    assert trial.checkpoint == str(tmp_path / "copy" / "students" / "t" / "best.safetensors")
    exported = moved.events_of(StageEvent)[1].found
    assert exported["files"]["onnx"]["path"] == str(tmp_path / "copy" / "champion" / "student.onnx")
    assert (exported["folder"], exported["card"]) == (
        str(tmp_path / "copy" / "champion"),
        "/elsewhere/card.json",
    )
    assert Ledger(before.folder).events() == before.events()


def test_fingerprints_hold_paths_in_the_folder_and_beside_the_experiments_file_as_relative_ones() -> None:
    paths = KeyPaths(Path("/a/out"), None, Path("/a"))
    found = [
        paths(text) for text in ("/a/out/cache/1", "/a/data", "/mnt/data", "kd", "sqlite:////a/out/m.db")
    ]
    assert found == ["out:cache/1", "experiment:/data", "/mnt/data", "kd", "out:sqlite:///m.db"]
    moved = KeyPaths(Path("/b/results"), None, Path("/c"))
    assert [moved("/b/results/cache/1"), moved("/c/data")] == found[:2]


def test_fingerprints_of_an_earlier_version_hold_paths_as_they_were_then() -> None:
    unmoved = KeyPaths(Path("/a/out/x"), "/a/out/x", Path("/a"))
    assert [unmoved(text) for text in ("/a/out/x/cache", "/a/data", "kd")] == [
        "/a/out/x/cache",
        "/a/data",
        "kd",
    ]
    project = KeyPaths(Path("/b/out/x"), "/a/out/x", Path("/b"))
    assert [project(text) for text in ("/b/out/x/cache", "/b/data")] == ["/a/out/x/cache", "/a/data"]
    folder = KeyPaths(Path("/b/copy"), "/a/out/x", Path("/b"))
    assert [folder(text) for text in ("/b/copy/cache", "/b/data")] == ["/a/out/x/cache", "/b/data"]


def test_the_ledger_of_an_earlier_version_tells_where_it_was_made(tmp_path: Path) -> None:
    out = unpack_older_run(tmp_path).parent / "out" / "three_trials"
    ledger = Ledger(out)
    assert ledger.former_place == "/tmp/stillhouse/fixture/out/three_trials"  # noqa: S108
    files = [Path(record.checkpoint) for record in ledger.trials() if record.checkpoint]
    assert len(files) == 7
    assert all(file.is_file() and file.is_relative_to(out) for file in files)
