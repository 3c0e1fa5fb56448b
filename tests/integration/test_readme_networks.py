"""README's examples with networks and weights of libraries: one run to its champion, the others looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import transformers
from safetensors.torch import load_file
from torch import Tensor

from orchestrator.records.summary import read_summary
from tests.integration.test_from_readme import ONE_SLOT, README, example_block
from tests.unit.trainables.data.image_folders import picture

pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.slow]
CLASSES = ("cat", "dog", "newt")
MAX_LINES = 15
PUBLISHED = "mobilenet_v3_small-047dcff4.pth"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, a folder of transformers, and torchvision's cache; nothing of it is fetched."""
    folder = tmp_path_factory.mktemp("networks")
    for part, count in (("train", 16), ("test", 4)):
        for label, name in enumerate(CLASSES):
            (folder / "pets" / part / name).mkdir(parents=True)
            for index in range(count):
                shown = picture(100 * label + index, 70, 64)
                shown.save(folder / "pets" / part / name / f"{index}.png")
    settings = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=64,
        patch_size=16,
        id2label=dict(enumerate(CLASSES)),
    )
    transformers.ViTForImageClassification(settings).save_pretrained(folder / "pets-vit")
    transformers.ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder / "pets-vit")
    (folder / "torch" / "hub" / "checkpoints").mkdir(parents=True)
    torch.manual_seed(5)
    state = torchvision.models.mobilenet_v3_small().state_dict()
    torch.save(state, folder / "torch" / "hub" / "checkpoints" / PUBLISHED)
    return folder


def command(words: str, name: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """A command about README's example."""
    text = example_block("yaml", f"name: {name}\n")
    assert len(text.splitlines()) < MAX_LINES
    (folder / f"{name}.yaml").write_text(text + ONE_SLOT)
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", words, f"{name}.yaml", *options],
        cwd=folder,
        env={
            **os.environ,
            **{"PYTHONPATH": str(README.parent), "OMP_NUM_THREADS": "1"},
            **{"TORCH_HOME": str(folder / "torch"), "HF_HUB_OFFLINE": "1"},
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1000,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def run(name: str, folder: Path) -> tuple[dict[str, Any], str]:
    """Summary and console of a whole run, with as little of it as there can be."""
    done = command("run", name, folder, "--trials", "1", "--finalists", "1", "--json")
    assert json.loads(done.stdout)["experiment"] == name
    return read_summary(folder / "out" / name / "summary.json").plain(), done.stderr


def found_before_training(name: str, folder: Path) -> dict[str, Any]:
    """What a run looks at first: it builds, asks and exports the networks."""
    told = json.loads(command("validate", name, folder, "--deep", "--json").stdout)
    found: dict[str, Any] = told["preflight"]
    return found


def champion_of(summary: dict[str, Any]) -> dict[str, Tensor]:
    return load_file(summary["champion"]["exports"]["safetensors"]["path"])


def test_a_timm_pair(folder: Path) -> None:
    assert found_before_training("timm_pair", folder)["problems"] == []


def test_a_folder_of_transformers_as_the_teacher(folder: Path) -> None:
    found = found_before_training("from_transformers", folder)
    assert found["problems"] == []
    assert [note for note in found["notes"] if note.startswith("teacher: right on ")], found


def test_a_student_that_is_fine_tuned_from_published_weights(folder: Path) -> None:
    summary, told = run("fine_tuned", folder)
    assert "starts from published, but for its head, which is fresh (classifier.3.weight" in told
    start = torch.load(folder / "torch" / "hub" / "checkpoints" / PUBLISHED, weights_only=True)
    found = champion_of(summary)
    same = {name for name in start if name in found and torch.equal(start[name], found[name])}
    frozen = {name for name in start if name.startswith(("features.0.", "features.1."))}
    assert frozen <= same
    learned = {name for name in start if name.endswith("weight")} - frozen
    assert not learned & same
