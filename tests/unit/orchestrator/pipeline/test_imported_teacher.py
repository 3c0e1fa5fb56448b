"""A teacher of which only logits are known: what its experiment may say, and what its runs are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.config.loading import LoadedExperiment, load_experiment
from orchestrator.config.paths import imported_file
from orchestrator.pipeline.finished import run_key
from orchestrator.pipeline.teachers.imported import imported_facts, keep_imported, read_imported
from orchestrator.records.ledger import Ledger
from orchestrator.records.summary import Summary, TeacherFigures
from orchestrator.records.tables.students_table import students_table
from orchestrator.reports.html_report import report_html
from orchestrator.reports.run_facts import RunFacts
from tests.unit.trainables.cache.tiny_caches import random_data
from trainables.cache.tools.import_logits import ImportedTeacher
from trainables.errors import ConfigError

EXPERIMENT = """\
name: brought
data: {name: digits}
teacher: {imported: true}
student: {name: mlp}
views: {weak: {views: 1, recipe: []}}
space: kd
"""
RECORD = ImportedTeacher(
    teacher="a" * 64,
    source="z.npz",
    source_sha256="b" * 64,
    accuracy=0.9,
    chance=0.1,
    selection_accuracy=None,
)


def written(folder: Path, text: str = EXPERIMENT) -> LoadedExperiment:
    path = folder / "brought.yaml"
    path.write_text(text + f"out: {folder / 'out'}\n")
    return load_experiment(str(path))


def test_an_experiment_may_have_a_teacher_without_a_network(tmp_path: Path) -> None:
    config = written(tmp_path).config.teacher
    assert (config.imported, config.model) == (True, None)
    with pytest.raises(ConfigError, match="no network: its logits were imported"):
        _ = config.network


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "imported: true",
            "imported: true, model: {name: mlp}",
            "teacher: give a `model`, or `imported: true`",
        ),
        ("imported: true", "imported: false", "teacher: give a `model`, or `imported: true`"),
        ("imported: true", "imported: true, checkpoint: x.safetensors", "`checkpoint` goes with a `model`"),
        ("views: 1", "views: 2", r"brought.yaml:5: views.weak: .*allowed: `recipe: \[\]` and `views: 1`"),
        ("space: kd", "space: kd\ncache: {embedding: true}", "cache.embedding: found true; imported logits"),
        ("space: kd", "space: kd\ncache: {autocast: true}", "cache.autocast: found true; imported logits"),
        ("space: kd", "space: kd\ncache: {online: true}", "cache.online: found true; imported logits"),
        ("[]", "[{op: crop_flip}]", r"views.weak: .*objective kd asks the teacher about the weak bank"),
    ],
)
def test_what_imported_logits_cannot_serve_is_refused(
    tmp_path: Path, before: str, after: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        written(tmp_path, EXPERIMENT.replace(before, after))


def test_views_that_no_objective_hears_the_teacher_on_may_be_altered(tmp_path: Path) -> None:
    views = "views: {weak: {views: 1, recipe: []}, strong: {views: 4, recipe: [{op: cutout}]}}"
    loaded = written(tmp_path, EXPERIMENT.replace("views: {weak: {views: 1, recipe: []}}", views))
    assert loaded.config.views.strong.views == 4


def test_a_run_without_imported_logits_is_told_the_command(tmp_path: Path) -> None:
    loaded = written(tmp_path)
    with pytest.raises(ConfigError, match=rf"bring them: stillhouse cache import FILE {loaded.source}"):
        read_imported(loaded)


@pytest.mark.parametrize("text", ["{", '{"teacher": 1}'])
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    loaded = written(tmp_path)
    keep_imported(loaded, RECORD).write_text(text)
    with pytest.raises(
        ConfigError, match=r"imported.json (cannot be read|is not of this version).*import the logits again"
    ):
        read_imported(loaded)


def test_what_is_known_of_the_teacher_is_kept_for_runs(tmp_path: Path) -> None:
    loaded = written(tmp_path)
    assert keep_imported(loaded, RECORD) == imported_file(loaded)
    assert read_imported(loaded) == RECORD
    facts = imported_facts(RECORD, random_data())
    assert (facts.fingerprint, facts.weights, facts.params) == (RECORD.teacher, None, None)


def test_a_finished_run_is_another_one_after_other_logits_were_imported(tmp_path: Path) -> None:
    loaded = written(tmp_path)
    keep_imported(loaded, RECORD)
    ledger = Ledger(tmp_path)
    before = run_key(loaded, ledger)
    assert run_key(loaded, ledger) == before
    keep_imported(loaded, RECORD.with_overrides(teacher="c" * 64, source="another.npz"))
    assert run_key(loaded, ledger) != before


def test_table_and_report_say_what_imported_logits_do_not_tell(summary: Summary) -> None:
    unknown = TeacherFigures(params=None, selection_accuracy=None, test_accuracy=None)
    changed = summary.model_copy(update={"teacher": unknown})
    _, rows = students_table(changed)
    assert rows[0][2:7] == ("unknown", "unknown", "", "", "unknown")
    page = report_html(RunFacts("digits", [], summary=changed))
    assert "teacher: unknown" in page
    assert "of the teacher's" not in page.split("<h2>")[0]
