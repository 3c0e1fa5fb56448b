"""The list of objectives: complete, honest about what each asks for, and instant."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.commands.objective_table import COLUMNS, NEED_WORDS, objective_facts
from orchestrator.config.loading import EXPERIMENTS_FOLDER, load_experiment, shipped_file
from trainables.config import OBJECTIVE_CONFIGS
from trainables.errors import ConfigError


def test_every_objective_is_listed_with_its_papers_defaults() -> None:
    facts = {fact.name: fact for fact in objective_facts()}
    assert facts.keys() == OBJECTIVE_CONFIGS.keys()
    for name, config in OBJECTIVE_CONFIGS.items():
        assert {"name": name, **facts[name].defaults} == config().plain()
        assert facts[name].paper == config.paper
        assert facts[name].what


def test_every_need_has_its_words() -> None:
    assert set(NEED_WORDS) >= {need for config in OBJECTIVE_CONFIGS.values() for need in config.needs}


def test_needs_are_those_at_the_defaults_and_those_of_some_options() -> None:
    needs = {fact.name: fact.needs for fact in objective_facts()}
    assert needs["ce"] == ("no teacher",)
    assert needs["kd"] == ("teacher's logits (weak)", "of all classes with some options")
    assert needs["ckd"] == ("teacher's logits (weak)", "of all classes", "unshifted")
    assert needs["mlld"] == ("teacher's logits (weak, strong)", "of all classes")
    assert needs["pskd"] == ("no teacher", "rows of samples")
    logits, embeddings = "teacher's logits (weak)", "both networks' embedding"
    assert needs["mcl"] == ("no teacher", "rows of samples", "student's embedding")
    assert needs["crd"] == (logits, "rows of samples", embeddings)
    assert needs["simreg"] == (logits, embeddings)
    judged = ("of all classes", "unshifted", "teacher's classifier")
    assert needs["srd"] == (logits, *judged, "student's last or embedding", "teacher's embedding")
    assert needs["thkd"] == (logits, "teacher's classifier", "student's embedding")


def test_people_see_a_table_and_programs_read_json() -> None:
    shown = CliRunner().invoke(app, ["objectives"]).stdout.splitlines()
    assert shown[1].split() == " ".join(COLUMNS).split()
    assert [line.split()[0] for line in shown[2:]] == list(OBJECTIVE_CONFIGS)
    told = json.loads(CliRunner().invoke(app, ["objectives", "--json"]).stdout)
    assert told["kd"]["defaults"]["temperature"] == 4.0
    assert told["crld"]["teacher_banks"] == ["weak", "strong"]


def test_the_list_needs_no_library_that_is_slow() -> None:
    code = (
        "import sys, orchestrator.commands.objective_table; "
        "sys.exit(any(n in sys.modules for n in ('torch', 'ray', 'mlflow')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_objective_of_a_cosine_head_is_refused_without_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    text = shipped_file("digits", EXPERIMENTS_FOLDER, kind="experiment").read_text()
    path.write_text(text.replace("space: demo", "space: cbd"))
    with pytest.raises(ConfigError, match=r"student.cosine_head: found nothing; objective cbd .* the width"):
        load_experiment(str(path))
    whole = text.replace("space: demo", "space: cbd").replace(
        "student: {name: resnet8,", "student: {cosine_head: 64, name: resnet8,"
    )
    path.write_text(whole + "cache: {embedding: true}\n")
    assert load_experiment(str(path)).config.student.cosine_head == 64
