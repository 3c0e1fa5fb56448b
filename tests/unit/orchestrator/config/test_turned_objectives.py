"""Objectives that see four quarter turns of each image: which experiments they may stand in."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.config.loading import LoadedExperiment, load_experiment
from trainables.config.objective_base import ROTATED
from trainables.errors import ConfigError

EXPERIMENT = """\
name: mine
data: {name: digits}
teacher: {model: {name: resnet20}}
student: {name: convnet}
views:
  weak:
    views: 2
    recipe: [{op: crop_flip}]
space: space.yaml
"""
SPACE = "mlkd: {relation_weight: {loguniform: [10, 100]}}"


def loaded(folder: Path, objectives: str = SPACE, experiment: str = EXPERIMENT) -> LoadedExperiment:
    (folder / "space.yaml").write_text(f"name: turns\nobjectives:\n  {objectives}\n")
    path = folder / "mine.yaml"
    path.write_text(experiment.replace("space.yaml", str(folder / "space.yaml")))
    return load_experiment(str(path))


def test_the_turned_banks_need_no_line_in_the_file(tmp_path: Path) -> None:
    views = loaded(tmp_path).config.views
    assert [views.bank(bank).views for bank in ROTATED] == [2, 2, 2, 2]


@pytest.mark.parametrize("recipe", ["[]", "[{op: crop_flip}]"])
def test_imported_logits_know_nothing_of_turned_images(tmp_path: Path, recipe: str) -> None:
    imported = EXPERIMENT.replace("{model: {name: resnet20}}", "{imported: true}")
    imported = imported.replace("[{op: crop_flip}]", recipe).replace("views: 2", "views: 1")
    with pytest.raises(
        ConfigError, match="turned images, which objective mlkd asks about, need a network"
    ) as found:
        loaded(tmp_path, experiment=imported)
    assert str(found.value).count("turned images") == 1
    assert "mine.yaml:3: teacher.imported" in str(found.value)


def test_a_mixed_bank_is_refused_once_and_at_the_step_of_the_file(tmp_path: Path) -> None:
    mixed = EXPERIMENT.replace("[{op: crop_flip}]", "[{op: crop_flip}, {op: mixup}]")
    with pytest.raises(ConfigError, match=r"mine.yaml:8: views.weak.recipe\[1\].op: found 'mixup'") as found:
        loaded(tmp_path, experiment=mixed)
    assert str(found.value).count("mixup") == 1


def test_mixed_images_may_be_turned_where_each_turn_is_compared_with_itself_alone(tmp_path: Path) -> None:
    mixed = EXPERIMENT.replace("[{op: crop_flip}]", "[{op: crop_flip}, {op: mixup}]")
    assert loaded(tmp_path, "hsakd: {temperature: {uniform: [2, 5]}}", mixed).config.views.weak.mixes
