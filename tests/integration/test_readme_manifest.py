"""The README's example of a manifest, as it stands there, from pictures to champion."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.records.summary import read_summary
from tests.integration.test_from_readme import ONE_SLOT
from tests.unit.trainables.data.image_folders import picture

pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.slow]

README = Path(__file__).parents[2] / "README.md"
CLASSES = ("sparrow", "wren", "robin")


def example() -> str:
    blocks: list[str] = re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL)
    (block,) = (block for block in blocks if block.startswith("name: photos\n"))
    return block


def write_photos(folder: Path) -> None:
    """Three classes, each of a tint of its own; one test picture is a copy of a training picture."""
    (folder / "shots").mkdir(parents=True)
    lines = ["path,label,split"]
    for index in range(120):
        part, label = ("test" if index % 4 == 3 else "train"), index % 3
        tinted = picture(index, 40, 36).point(
            [value // 2 + 127 * (value_of == label) for value_of in range(3) for value in range(256)]
        )
        name = f"shots/{index:04d}.jpg"
        tinted.save(folder / name)
        lines.append(f"{name},{CLASSES[label]},{part}")
    (folder / "shots" / "copy.jpg").write_bytes((folder / "shots" / "0000.jpg").read_bytes())
    lines.append(f"shots/copy.jpg,{CLASSES[0]},test")
    (folder / "labels.csv").write_text("\n".join(lines))


def test_the_manifest_of_the_readme_goes_from_pictures_to_champion(tmp_path: Path) -> None:
    assert len(example().splitlines()) < 15
    (tmp_path / "photos.yaml").write_text(example() + ONE_SLOT)
    write_photos(tmp_path / "photos")
    ended = subprocess.run(
        [sys.executable, "-m", "orchestrator", "run", "photos.yaml"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(README.parent), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-4000:]
    assert "data: layout manifest (labels.csv)" in ended.stdout
    summary = read_summary(tmp_path / "out" / "photos" / "summary.json")
    (leak,) = summary.leaks
    assert re.match(r"1 of 31 test images are in the (training|selection) split too, by content", leak)
    assert f"warning: {leak}" in ended.stdout
    assert leak in (tmp_path / "out" / "photos" / "report.html").read_text()
    assert summary.teacher is not None
    assert summary.teacher.test_accuracy is not None
    assert summary.teacher.test_accuracy > 0.8
