"""Files without a teacher: which spaces may do without one, and what is said where one is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.config.asked_features import taught_objectives
from orchestrator.config.loading import LoadedExperiment, load_experiment, load_space
from orchestrator.config.overrides import Overrides
from trainables.config import OBJECTIVE_CONFIGS, CeConfig, Need
from trainables.config.objective_base import Preparation
from trainables.errors import ConfigError

EXPERIMENT = """\
name: mine
data: {name: digits}
student: {name: mlp}
views: {weak: {views: 1, recipe: []}}
space: space.yaml
"""
LR = "training: {lr: {choice: [0.01, 0.1]}}\n"
PAIRS = "pairs: {large: {teacher: {name: resnet20}, student: {name: mlp}}}\n"
TEACHER = "teacher: {model: {name: resnet20}}\n"
WITHOUT = ("ce", "ls", "zipf", "pskd", "dml", "mcl", "mfef", "mixskd")


def loaded(folder: Path, objectives: str, more: str = "", pair: str = "") -> LoadedExperiment:
    (folder / "space.yaml").write_text(f"name: mixed\nobjectives: {objectives}\n{LR}")
    (folder / "mine.yaml").write_text(EXPERIMENT + more)
    return load_experiment(f"{folder / 'mine.yaml'}{pair}")


def test_a_space_without_a_teacher_needs_no_section(tmp_path: Path) -> None:
    config = loaded(tmp_path, "{ls: {smoothing: {choice: [0.1, 0.2]}}, ce: {}}").config
    assert not config.has_teacher
    assert config.each_teacher == ()
    assert config.factories == ()
    assert not {"teacher", "teachers"} & config.plain().keys()
    assert type(config).from_plain(config.plain()) == config


def test_a_mixed_space_is_refused_by_line_with_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        loaded(tmp_path, "{ce: {}, kd: {temperature: {choice: [1, 4]}}, crld: {}}")
    (problem,) = refused.value.problems
    assert problem == (
        f"{tmp_path / 'mine.yaml'}:5: space: found no section `teacher`; objectives kd, crld of space mixed "
        "learn from a teacher: write `teacher: {model: {name: ...}}`, with a `checkpoint` beside `model` "
        "where it is trained already, or take a space whose objectives all do without "
        f"({', '.join(WITHOUT)})"
    )
    assert loaded(tmp_path, "{ce: {}, kd: {temperature: {choice: [1, 4]}}}", TEACHER).config.has_teacher


def test_validate_says_the_same_and_what_is_not_made(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["validate", "digits_without_teacher"])
    assert done.exit_code == 0
    assert "; no objective hears a teacher, so none is made" in done.stdout
    loaded(tmp_path, "{ce: {}}", TEACHER)
    assert "so none is made" in CliRunner().invoke(app, ["validate", str(tmp_path / "mine.yaml")]).stdout
    assert "so none is made" not in CliRunner().invoke(app, ["validate", "digits"]).stdout
    (tmp_path / "space.yaml").write_text(f"name: mixed\nobjectives: {{kd: {{}}}}\n{LR}")
    (tmp_path / "mine.yaml").write_text(EXPERIMENT)
    error = CliRunner().invoke(app, ["validate", str(tmp_path / "mine.yaml")]).exception
    assert isinstance(error, ConfigError)
    assert "objective kd of space mixed learns from a teacher" in str(error)


def test_another_space_on_the_command_line_is_checked_too() -> None:
    with pytest.raises(ConfigError, match=r"space: found no section `teacher`; objective kd of space kd"):
        load_experiment("digits_without_teacher", overrides=Overrides(space="kd"))


def test_pairs_bring_a_teacher_to_a_file_that_has_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"or choose one of the file's pairs \(large\), which bring theirs"):
        loaded(tmp_path, "{kd: {}}", PAIRS)
    (teacher,) = loaded(tmp_path, "{kd: {}}", PAIRS, ":large").config.each_teacher
    assert teacher.network.name == "resnet20"
    assert not loaded(tmp_path, "{ce: {}}", PAIRS).config.has_teacher


def test_a_folder_of_images_needs_its_size_where_no_teacher_states_one(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    folder = EXPERIMENT.replace("{name: digits}", "{name: image_folder, root: pictures}")
    (tmp_path / "space.yaml").write_text(f"name: mixed\nobjectives: {{ce: {{}}}}\n{LR}")
    (tmp_path / "mine.yaml").write_text(folder)
    with pytest.raises(ConfigError, match=r"mine\.yaml:2: data: found no `image_size`"):
        load_experiment(str(tmp_path / "mine.yaml"))


def test_images_without_labels_teach_nobody_who_hears_no_teacher(tmp_path: Path) -> None:
    unlabelled = "{name: digits, train_limit: 400, unlabelled: {rest: true}}"
    (tmp_path / "space.yaml").write_text(f"name: mixed\nobjectives: {{ce: {{}}}}\n{LR}")
    (tmp_path / "mine.yaml").write_text(EXPERIMENT.replace("{name: digits}", unlabelled))
    with pytest.raises(
        ConfigError, match="no objective of space mixed hears a teacher, so nothing is learned"
    ):
        load_experiment(str(tmp_path / "mine.yaml"))


def test_those_that_do_without_are_told_from_the_others() -> None:
    assert tuple(n for n, known in OBJECTIVE_CONFIGS.items() if not known().hears_teacher) == WITHOUT
    assert taught_objectives(load_space("without_teacher")) == ()
    assert taught_objectives(load_space("demo")) == ("kd", "dkd", "crld")


class _Classifier(CeConfig):
    needs = frozenset({Need.TEACHER_CLASSIFIER})


class _Prepared(CeConfig):
    preparation = Preparation.SS_HEAD


class _Features(CeConfig):
    @property
    def teacher_features(self) -> tuple[str, ...]:
        return ("embedding",)


@pytest.mark.parametrize("config", [_Classifier(), _Prepared(), _Features()])
def test_whatever_is_asked_of_a_teacher_counts(config: CeConfig) -> None:
    assert config.teacher_banks == ()
    assert config.hears_teacher
