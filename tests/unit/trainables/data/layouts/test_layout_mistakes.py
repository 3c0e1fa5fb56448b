"""What people's folders and tables really look like: nothing of the test part is trained on by mistake."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.unit.trainables.data.image_folders import config_of, picture
from tests.unit.trainables.data.layouts.written_layouts import encoded
from trainables.config.data import SourcePart
from trainables.data.layouts.listing import list_images


@pytest.fixture(autouse=True)
def _scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (folder := tmp_path / "pictures").mkdir()
    return folder


def pictures(root: Path, *names: str) -> None:
    for index, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(picture(index)))


@pytest.mark.parametrize("header", ["path,label,Split", "Path,Label,SUBSET"])
def test_a_column_of_splits_is_found_in_any_case(root: Path, header: str) -> None:
    pictures(root, "0.png", "1.png", "2.png")
    (root / "all.csv").write_text(f"{header}\n0.png,a,train\n1.png,b,train\n2.png,a,test\n")
    images = {part: list(list_images(config_of(root), part).images.names) for part in SourcePart}
    assert images == {SourcePart.TRAIN: ["0.png", "1.png"], SourcePart.TEST: ["2.png"]}
