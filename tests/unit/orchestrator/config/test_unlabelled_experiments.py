"""Unlabelled images: which objectives may learn from them, and what is refused before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.commands.objective_table import objective_facts
from orchestrator.config.loading import LoadedExperiment, load_experiment
from search_spaces.space import SpaceConfig
from trainables.config import OBJECTIVE_CONFIGS
from trainables.errors import ConfigError

EXPERIMENT = """\
name: mine
data: {name: digits, train_limit: 100, unlabelled: {rest: trueMORE}}
teacher: {model: {name: resnet20}}
student: {name: mlp}
views: {weak: {views: 1, recipe: []}}
space: space.yaml
"""
SERVED = ("kd", "dist", "ckd", "clkd", "mlld", "ctkd", "crld", "{kd: {}, ce: {}, ls: {}}")
LR = "training: {lr: {loguniform: [0.01, 0.1]}}\n"
ABOUT_A_CLASS = {
    "dkd": "dkd: {}",
    "aekt": "aekt: {}",
    "ctkd": "ctkd: {base: {choice: [kd, dkd]}}",
    "crld": "crld: {base: dkd}",
}


def loaded(
    folder: Path, objectives: str, *, more: str = "", experiment: str = EXPERIMENT, training: str = LR
) -> LoadedExperiment:
    objectives = objectives if ":" in objectives else f"{objectives}: {{}}"
    (folder / "space.yaml").write_text(f"name: few\nobjectives:\n  {objectives}\n{training}")
    path = folder / "mine.yaml"
    path.write_text(experiment.replace("MORE", more).replace("space.yaml", str(folder / "space.yaml")))
    return load_experiment(str(path))


@pytest.mark.parametrize("objectives", SERVED)
def test_objectives_whose_teachers_terms_need_no_label_are_served(tmp_path: Path, objectives: str) -> None:
    unlabelled = loaded(tmp_path, objectives).config.data.unlabelled
    assert unlabelled is not None
    assert unlabelled.share == 0.5


@pytest.mark.parametrize("name", ABOUT_A_CLASS)
def test_objectives_about_the_labels_class_need_the_named_option(tmp_path: Path, name: str) -> None:
    wanted = (
        rf"mine.yaml:2: data.unlabelled: objective {name} of space few cannot learn from unlabelled images: "
        r"its teacher's term is about the label's class, and these have none; "
        r"`data.unlabelled.top_class_as_target: true` takes .*; or leave it out of the space"
    )
    with pytest.raises(ConfigError, match=wanted):
        loaded(tmp_path, ABOUT_A_CLASS[name])
    loaded(tmp_path, ABOUT_A_CLASS[name], more=", top_class_as_target: true")


def test_an_objective_that_attacks_away_from_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"objective akd .*attacks each image away from its label"):
        loaded(tmp_path, "akd", more=", top_class_as_target: true")


def test_a_space_without_a_teacher_has_no_use_for_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no objective of space few hears a teacher.*take another space"):
        loaded(tmp_path, "{ce: {}, ls: {}}")


def test_imported_logits_are_refused_by_name(tmp_path: Path) -> None:
    imported = EXPERIMENT.replace("{model: {name: resnet20}}", "{imported: true}")
    with pytest.raises(
        ConfigError, match=r"teacher\.imported: found true; .*`data.unlabelled` needs a network"
    ):
        loaded(tmp_path, "kd", experiment=imported)


def test_a_batch_of_one_cannot_hold_both_kinds(tmp_path: Path) -> None:
    single = EXPERIMENT + "training: {batch_size: 1}\n"
    with pytest.raises(ConfigError, match=r"data\.unlabelled\.share: found 0\.5; .*allowed: 1, or larger"):
        loaded(tmp_path, "kd", experiment=single)
    loaded(tmp_path, "kd", more=", share: 1", experiment=single)


def test_a_batch_of_one_in_the_file_is_told_where_the_space_searches_others(tmp_path: Path) -> None:
    single = EXPERIMENT + "training: {batch_size: 1}\n"
    others = LR.replace("}}", "}, batch_size: {choice: [4, 8]}}")
    with pytest.raises(ConfigError, match=r"data\.unlabelled\.share: found 0\.5; .*allowed: 1, or larger"):
        loaded(tmp_path, "kd", experiment=single, training=others)


def test_an_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.unlabelled\.shares.*did you mean.*share"):
        loaded(tmp_path, "kd", more=", shares: 0.5")


def test_the_table_of_objectives_says_who_learns_from_them() -> None:
    said = {facts.name: facts.unlabelled for facts in objective_facts()}
    without = {name for name, config in OBJECTIVE_CONFIGS.items() if not config.teacher_banks}
    assert {name for name, word in said.items() if word == "no"} == {*without, "akd"}
    assert {name for name, word in said.items() if word == "by the teacher's class"} == {
        "dkd",
        "aekt",
        "mlkd",
    }


def test_shipped_spaces_of_one_objective_agree_with_the_table(tmp_path: Path) -> None:
    """A space whose values all fit is accepted, and no other."""
    said = {facts.name: facts.unlabelled for facts in objective_facts()}
    for name, word in said.items():
        path = tmp_path / "mine.yaml"
        needs = "student: {name: resnet8, cosine_head: 64}\ncache: {embedding: true}" if name == "cbd" else ""
        text = EXPERIMENT.replace("MORE", "").replace("space: space.yaml", f"space: {name}")
        path.write_text(text.replace("student: {name: mlp}", needs or "student: {name: mlp}"))
        if word == "yes" and name not in ("crld", "ctkd"):  # whose spaces may search the base too
            assert isinstance(load_experiment(str(path)).space, SpaceConfig)
        elif word != "yes":
            with pytest.raises(ConfigError, match=r"data\.unlabelled"):
                load_experiment(str(path))


def test_validate_says_what_a_batch_holds(tmp_path: Path) -> None:
    loaded(tmp_path, "kd", more=", share: 0.25")
    said = CliRunner().invoke(app, ["validate", str(tmp_path / "mine.yaml")])
    assert said.exit_code == 0
    assert "; unlabelled images of training samples that are left out: 16 of each batch of 64" in said.output


def test_other_experiments_have_nothing_of_it_in_their_plain_data(tmp_path: Path) -> None:
    config = load_experiment("digits").config
    assert "unlabelled" not in config.data.plain()
    assert config.unlabelled_in_words == ""
