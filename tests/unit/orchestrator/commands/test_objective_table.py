"""The list of objectives: complete, honest about what each asks for, and instant."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.commands import step_costs
from orchestrator.commands.objective_table import COLUMNS, NEED_WORDS, _source, objective_facts
from orchestrator.config.loading import EXPERIMENTS_FOLDER, load_experiment, shipped_file
from trainables.config import OBJECTIVE_CONFIGS
from trainables.config.objectives import AkdConfig
from trainables.config.robust_objectives import TeacherInput
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


BESIDE = "where cache.features names them, else beside the student"
FOUR = "weak, weak90, weak180, weak270"


@pytest.mark.parametrize(
    ("name", "needs", "source", "step"),
    [
        (
            "akd",
            "teacher's logits (weak), adversarial images, online teacher with some options",
            "cached; beside the student with some options",
            "1 image after 10 of an attack",
        ),
        (
            "at",
            "teacher's logits (weak), student's stage1, stage2, stage3, "
            "teacher's energy.stage1, energy.stage2, energy.stage3",
            "cached",
            "1 image",
        ),
        (
            "fitnet",
            "teacher's logits (weak), both networks' stage2",
            f"cached; stage2 {BESIDE}",
            "1 image",
        ),
        (
            "reviewkd",
            "teacher's logits (weak), student's stage1, stage2, stage3, embedding, "
            "teacher's stage1.pre, stage2.pre, stage3.pre, embedding",
            f"cached; stage1.pre, stage2.pre, stage3.pre {BESIDE}",
            "1 image",
        ),
        (
            "sskd",
            f"teacher's logits ({FOUR}), of all classes with some options, student's embedding, "
            "teacher's ss_head, teacher prepared (ss_head)",
            "cached",
            "4 images in one pass",
        ),
        (
            "hsakd",
            f"teacher's logits ({FOUR}), student's stage1, stage2, stage3, "
            "teacher's branch1, branch2, branch3, teacher prepared (branches)",
            "cached",
            "4 images in one pass",
        ),
    ],
    ids=lambda value: value if len(value) < 9 else "",
)
def test_a_row_says_what_is_heard_where_it_comes_from_and_what_a_step_does(
    name: str, needs: str, source: str, step: str
) -> None:
    facts = {fact.name: fact for fact in objective_facts()}
    assert facts[name].row()[:4] == (name, needs, source, step)


def test_what_a_teacher_is_asked_about_images_under_attack_is_never_cached() -> None:
    assert _source(AkdConfig(teacher_input=TeacherInput.ADVERSARIAL)) == "beside the student"


def test_a_step_is_told_over_one_of_cross_entropy_where_it_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def two_figures(on_objective: Callable[[str], None]) -> Iterator[tuple[str, float | str]]:
        on_objective("sskd")
        yield "sskd", 4.126
        yield "fitnet", "the student has no stages"
        yield "at", 1.0

    monkeypatch.setattr(step_costs, "step_costs", two_figures)
    done = CliRunner().invoke(app, ["objectives", "--measure", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    measured = {name: fact["step_over_ce"] for name, fact in told.items() if fact["step_over_ce"] is not None}
    assert measured == {"sskd": 4.126, "at": 1.0}
    assert "fitnet is not timed: the student has no stages" in done.stderr
    assert "its time over one of cross-entropy: student resnet8 of width 16, batches of 64" in done.stderr
    shown = CliRunner().invoke(app, ["objectives", "--measure"]).stdout
    assert "  4 images in one pass: 4.13  " in shown
    assert "  1 image: 1.00  " in shown


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
