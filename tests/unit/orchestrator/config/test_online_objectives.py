"""An objective that asks the teacher about adversarial images: which experiments it may stand in."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.commands.objective_table import objective_facts
from orchestrator.config.loading import LoadedExperiment, load_experiment
from search_spaces.space import SpaceConfig
from trainables.config.objectives import AkdConfig
from trainables.errors import ConfigError

EXPERIMENT = """\
name: mine
data: {name: digits}
teacher: {model: {name: resnet20}}
student: {name: mlp}
views: {weak: {views: 1, recipe: []}}
space: space.yaml
"""
FIXED = "akd: {steps: {choice: [3, 5, 10]}, teacher_input: adversarial}"
SEARCHED = "akd: {teacher_input: {choice: [view, adversarial]}}"
AMONG_OTHERS = "{kd: {temperature: {uniform: [1, 8]}}, akd: {teacher_input: adversarial}}"
REACHING = [FIXED, SEARCHED, AMONG_OTHERS]


def loaded(folder: Path, objectives: str, experiment: str = EXPERIMENT) -> LoadedExperiment:
    (folder / "space.yaml").write_text(f"name: robust\nobjectives:\n  {objectives}\n")
    path = folder / "mine.yaml"
    path.write_text(experiment.replace("space.yaml", str(folder / "space.yaml")))
    return load_experiment(str(path))


@pytest.mark.parametrize("cache", ["cache:\n  online: false\n", "cache: {precision: fp32}\n", ""])
@pytest.mark.parametrize("objectives", REACHING)
def test_a_space_that_can_ask_about_adversarial_images_needs_an_online_teacher(
    tmp_path: Path, objectives: str, cache: str
) -> None:
    line = 8 if "online" in cache else 7 if cache else 1
    with pytest.raises(
        ConfigError,
        match=rf"mine.yaml:{line}: cache.online: found false; objective akd of space robust asks the teacher "
        "about adversarial images, which no cache holds; allowed: true, or `teacher_input: view`",
    ):
        loaded(tmp_path, objectives, EXPERIMENT + cache)


@pytest.mark.parametrize("objectives", REACHING)
def test_with_an_online_teacher_it_loads(tmp_path: Path, objectives: str) -> None:
    config = loaded(tmp_path, objectives, EXPERIMENT + "cache: {online: true}\n").config
    assert config.cache.online


@pytest.mark.parametrize(
    "objectives",
    ["akd: {steps: {choice: [3, 5, 10]}, teacher_input: view}", "akd: {steps: {choice: [3, 10]}}"],
)
def test_the_view_needs_none(tmp_path: Path, objectives: str) -> None:
    assert not loaded(tmp_path, objectives).config.cache.online


@pytest.mark.parametrize("cache", ["", "cache: {online: true}\n"])
def test_imported_logits_have_no_network_to_ask(tmp_path: Path, cache: str) -> None:
    imported = EXPERIMENT.replace("{model: {name: resnet20}}", "{imported: true}") + cache
    with pytest.raises(
        ConfigError,
        match=r"mine.yaml:3: teacher.imported: found true; objective akd of space robust .* have no network; "
        "allowed: `teacher_input: view`",
    ):
        loaded(tmp_path, FIXED, imported)


def test_an_unknown_input_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"space.yaml:3: .*teacher_input.*'view' or 'adversarial'"):
        loaded(tmp_path, "akd: {steps: {choice: [3, 10]}, teacher_input: student}")


def test_where_the_input_is_searched_the_view_comes_first() -> None:
    plain = {"name": "mine", "objectives": {"akd": {"teacher_input": {"choice": ["adversarial", "view"]}}}}
    space = SpaceConfig.from_plain(plain)
    (point, *_) = space.first_points()
    chosen = space.resolve(point).objective
    assert chosen["teacher_input"] == "view"
    assert AkdConfig.from_plain(chosen) == AkdConfig()


def test_the_list_of_objectives_says_online_teacher_with_some_options() -> None:
    needs = {fact.name: fact.needs for fact in objective_facts()}
    assert needs["akd"] == (
        "teacher's logits (weak)",
        "adversarial images",
        "online teacher with some options",
    )
