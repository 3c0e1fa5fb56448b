"""README's examples with networks and weights of libraries, each run from data to champion."""

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
from tests.integration.test_from_readme import README, example_block
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


def run(name: str, folder: Path) -> tuple[dict[str, Any], str]:
    """Summary and console of a whole run of README's example, with as little of it as there can be."""
    text = example_block("yaml", f"name: {name}\n")
    assert len(text.splitlines()) < MAX_LINES
    (folder / f"{name}.yaml").write_text(text)
    options = ["--trials", "1", "--finalists", "1", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", "run", f"{name}.yaml", *options],
        cwd=folder,
        env={
            **os.environ,
            **{"PYTHONPATH": str(README.parent), "OMP_NUM_THREADS": "1"},
            **{"TORCH_HOME": str(folder / "torch"), "HF_HUB_OFFLINE": "1"},
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["experiment"] == name
    return read_summary(folder / "out" / name / "summary.json").plain(), done.stderr


def champion_of(summary: dict[str, Any]) -> dict[str, Tensor]:
    return load_file(summary["champion"]["exports"]["safetensors"]["path"])


def test_a_timm_pair(folder: Path) -> None:
    summary, _ = run("timm_pair", folder)
    assert summary["teacher"]["params"] > 11_000_000
    assert "conv_stem.weight" in champion_of(summary)


def test_a_folder_of_transformers_as_the_teacher(folder: Path) -> None:
    summary, told = run("from_transformers", folder)
    assert "its images normalised by mean [0.5, 0.5, 0.5], std [0.5, 0.5, 0.5]" in told
    teacher = transformers.AutoModelForImageClassification.from_pretrained(folder / "pets-vit")
    assert summary["teacher"]["params"] == sum(p.numel() for p in teacher.parameters())


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
