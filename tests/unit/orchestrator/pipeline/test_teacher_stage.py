"""The first look at a large image folder."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import pytest

from orchestrator.pipeline.teacher_stage import look_at_images
from orchestrator.terminal.console import Console
from tests.unit.trainables.data.image_folders import config_of, write_folder
from trainables.config import DataConfig
from trainables.config.data import DataName


def said(config: DataConfig) -> str:
    out = io.StringIO()
    look_at_images(config, Console(out=out))
    return out.getvalue()


def test_the_first_look_tells_how_far_it_is_and_the_second_has_nothing_to_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    root = write_folder(tmp_path / "pictures", per_class=3)
    assert said(config_of(root)) == "images looked at: 6/6\n"
    assert said(config_of(root)) == ""


def test_other_data_are_not_looked_at(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "pictures", per_class=3)
    assert said(config_of(root, memory_gb=1)) == ""
    assert said(DataConfig(name=DataName.DIGITS)) == ""


def test_a_folder_that_this_machine_does_not_have_is_left_to_those_that_load_it(tmp_path: Path) -> None:
    assert said(config_of(tmp_path / "elsewhere")) == ""
