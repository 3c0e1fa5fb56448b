"""What is told of networks and weights of libraries before anything is trained."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import transformers

from orchestrator.config.loading import load_experiment
from orchestrator.pipeline.context import quiet_run
from orchestrator.pipeline.finished import run_key
from orchestrator.pipeline.preflight import Findings, preflight, preflight_key
from orchestrator.pipeline.preflight_networks import NetworkChecks
from orchestrator.terminal.console import Console

TASK = "tests.unit.orchestrator.pipeline.preflight_task"
EXPERIMENT = f"""\
name: task
data: {{factory: "{TASK}:dataset"}}
teacher: {{model: TEACHER}}
student: STUDENT
views: {{weak: {{views: 1, recipe: []}}}}
space: kd
"""
OF_TIMM = "{name: timm, variant: test_resnet}"
OF_TRANSFORMERS = "{name: transformers, variant: my_resnet}"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def _without_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NetworkChecks, "export", lambda _: None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of transformers beside the experiment's file."""
    settings = transformers.ResNetConfig(
        embedding_size=4, hidden_sizes=[4], depths=[1], layer_type="basic", id2label=dict(enumerate("abcd"))
    )
    transformers.ResNetForImageClassification(settings).save_pretrained(tmp_path / "my_resnet")
    return tmp_path / "my_resnet"


def written(*, teacher: str = "{name: mlp}", student: str = "{name: mlp}") -> str:
    Path("task.yaml").write_text(EXPERIMENT.replace("TEACHER", teacher).replace("STUDENT", student))
    return "task.yaml"


def look(file: str) -> Findings:
    with quiet_run(load_experiment(file), Console(out=io.StringIO())) as run:
        return preflight(run)


def keys(file: str) -> tuple[str, str, str]:
    with quiet_run(load_experiment(file), Console(out=io.StringIO())) as run:
        return preflight_key(run), run_key(run.loaded, run.ledger), run.student.plain()["variant"]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("student", [OF_TIMM, OF_TRANSFORMERS])
def test_a_student_of_a_library_is_tried_exported_and_its_adapted_stem_is_said(student: str) -> None:
    found = look(written(student=student))
    assert found.problems == []
    assert any("its first convolution takes grey images" in note for note in found.notes)


@pytest.mark.usefixtures("_without_export")
def test_images_that_are_too_small_for_a_network_are_said_with_what_to_write() -> None:
    found = look(written(student="{name: torchvision, variant: resnet18}"))
    (note,) = [note for note in found.notes if "of images of 8 pixels" in note]
    assert "see 1x1" in note
    assert "`resolution: 32`" in note


@pytest.mark.usefixtures("_without_export")
def test_a_network_of_a_fixed_image_size_is_refused_by_name_with_what_to_write() -> None:
    (problem,) = look(written(student="{name: timm, variant: test_vit}")).problems
    assert problem.startswith("student test_vit fails in evaluation mode")
    assert "`arguments: {img_size: SIDE}`" in problem


def test_a_folder_of_transformers_lies_beside_the_experiments_file(folder: Path) -> None:
    model = load_experiment(written(teacher=OF_TRANSFORMERS)).config.teacher.network
    assert model.folder == folder
    model = load_experiment(written(student="{name: transformers, variant: someone/resnet}")).config.student
    assert (model.variant, model.folder) == ("someone/resnet", None)


def test_a_folder_of_transformers_is_known_by_its_configuration_wherever_it_lies(folder: Path) -> None:
    first = keys(written(student=OF_TRANSFORMERS))
    moved = folder.rename(folder.with_name("moved"))
    again = keys(written(student=OF_TRANSFORMERS.replace("my_resnet", "moved")))
    assert again[:2] == first[:2]
    assert again[2] != first[2]
    config = moved / "config.json"
    config.write_text(config.read_text().replace('"relu"', '"gelu"'))
    changed = keys(written(student=OF_TRANSFORMERS.replace("my_resnet", "moved")))
    assert not set(changed[:2]) & set(first[:2])
