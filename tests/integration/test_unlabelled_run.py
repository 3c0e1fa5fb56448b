"""README's example of unlabelled images beside labelled ones, run as it stands there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.integration.test_from_readme import ONE_SLOT, README, example_block
from trainables.cache.node.reader import open_cache
from trainables.data.splits import FIRST_UNLABELLED_ID, NO_LABEL

pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.slow]

N_NEW, N_TEST = 300, 25
"""Pictures that nobody has seen, and copies of images of the test part."""
PATIENCE_S = 900.0
PICTURES = """
import sys
from pathlib import Path
import torch
from PIL import Image
from my_task import dataset

def save(images, folder, first):
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        levels = (image * 255).round().to(torch.uint8)
        Image.fromarray(levels[0].numpy()).save(folder / f"{first + number:04d}.png")

n_new, n_test = map(int, sys.argv[1:])
torch.manual_seed(5)
labels = torch.randint(0, 4, (n_new,))
images = torch.rand(n_new, 1, 2, 4, 2, 4)
images[torch.arange(n_new), 0, labels // 2, :, labels % 2, :] += 0.12
save(images.reshape(-1, 1, 8, 8) / 1.12, Path("pictures") / "new", 0)
save(dataset("test").tensors[0][:n_test], Path("pictures") / "known" / "deeper", 5000)
"""


@dataclass(frozen=True)
class Done:
    """A folder with both files, and what running twice said."""

    folder: Path
    first: subprocess.CompletedProcess[str]
    again: subprocess.CompletedProcess[str]
    plan: dict[str, Any]

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.first.stdout)
        return found


def called(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(README.parent), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("readme-unlabelled")
    (folder / "my_task.py").write_text(example_block("python", "def dataset"))
    (folder / "my_pictures.yaml").write_text(example_block("yaml", "name: my_pictures") + ONE_SLOT)
    made = called(folder, "-c", PICTURES, str(N_NEW), str(N_TEST))
    assert made.returncode == 0, made.stderr
    run = ("-m", "orchestrator", "run", "my_pictures.yaml", "--json")
    first = called(folder, *run)
    assert first.returncode == 0, first.stderr
    plan = called(folder, "-m", "orchestrator", "cache", "plan", "my_pictures.yaml", "--json")
    return Done(folder, first, called(folder, *run), json.loads(plan.stdout))


def test_the_example_is_short() -> None:
    assert len(example_block("yaml", "name: my_pictures").splitlines()) < 15


def test_the_counts_are_in_the_summary_and_on_the_console(done: Done) -> None:
    assert done.summary["unlabelled"] == {
        "count": N_NEW,
        "in_selection": 0,
        "in_test": N_TEST,
        "unreadable": 0,
        "share": 0.5,
    }
    said = " ".join(done.first.stderr.split())
    assert f"{N_NEW} unlabelled images of" in said
    assert f"left out: {N_TEST} in the test split too" in said
    assert "controls from labelled ones alone" in said
    report = (done.folder / "out" / "my_pictures" / "report.html").read_text()
    assert f"{N_NEW} unlabelled images (left out: {N_TEST} in the test split too)" in report


def test_the_cache_holds_both_kinds_and_the_proof_saw_them(done: Done) -> None:
    reader = open_cache(done.summary["cache"]["uri"])
    labels = np.asarray(reader.arrays("weak").labels[0])
    ids = reader.ids
    assert int((labels == NO_LABEL).sum()) == int((ids >= FIRST_UNLABELLED_ID).sum()) == N_NEW
    assert done.summary["cache"]["rows"] == 4 * len(ids) == done.plan["rows"]
    assert done.plan["rows_to_compute"] == 0
    assert "64 answers proved against the live teacher" in done.first.stderr
    pictures = sorted((done.folder / "pictures").rglob("*.png"))
    assert len(pictures) == N_NEW + N_TEST
    # Known ones come first in the order of paths, and keep their places.
    assert int(ids[-N_NEW]) == FIRST_UNLABELLED_ID + N_TEST


def test_students_learn_from_both_and_controls_from_labelled_images(done: Done) -> None:
    epochs: dict[str, list[dict[str, float]]] = {}
    for event in events(done):
        if event["kind"] == "epoch":
            epochs.setdefault(event["trial"], []).append(event["metrics"])
    kd = [metrics for trial, told in epochs.items() if trial.startswith("kd-") for metrics in told]
    assert kd
    assert all(metrics["train/ce"] > 0 and metrics["train/kd"] > 0 for metrics in kd)
    controls = [told for trial, told in epochs.items() if not trial.startswith("kd-")]
    assert controls
    assert all(metrics.keys() >= {"train/ce"} and "train/kd" not in metrics for metrics in controls[0])


def test_a_second_run_trains_nothing_and_says_the_same(done: Done) -> None:
    assert done.again.returncode == 0, done.again.stderr
    assert json.loads(done.again.stdout) == done.summary


def test_a_picture_that_comes_is_another_cache_and_the_same_teacher(done: Done) -> None:
    noise = torch.randint(0, 256, (8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    picture = done.folder / "pictures" / "new" / "zzz.png"
    Image.fromarray(noise.numpy()).save(picture)
    try:
        text = (done.folder / "my_pictures.yaml").read_text()
        (done.folder / "more.yaml").write_text(text + "out: out/my_pictures\n")
        plan = called(done.folder, "-m", "orchestrator", "cache", "plan", "more.yaml", "--json")
        found = json.loads(plan.stdout)
    finally:
        picture.unlink()
    assert found["unlabelled"]["count"] == N_NEW + 1
    assert found["rows_to_compute"] == found["rows"] == done.plan["rows"] + 4
    assert found["teacher_images_per_s"] is not None  # it is the teacher that the first run made


def events(done: Done) -> list[dict[str, Any]]:
    ledger = done.folder / "out" / "my_pictures" / "ledger.jsonl"
    return [json.loads(line) for line in ledger.read_text().splitlines()]
