"""Which single answers of a run a page shows, and what it says where they are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.records.kept_answers import answers_file, run_answers
from orchestrator.records.summary import Summary
from tests.synthetic_answers import SyntheticAnswers
from trainables.evaluation.answers_file import read_answers

SOME = SyntheticAnswers(images=40, classes=4)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Answers of the champion, f1-1, and of two seeds of its control."""
    SOME.write(tmp_path, ["f1-1", "b-0", "b-1"])
    return tmp_path


def test_the_control_is_the_one_with_the_champions_seed(out: Path, summary: Summary) -> None:
    found = run_answers(out, summary, [])
    assert found.champion is not None
    assert found.control is not None
    own, control = (read_answers(answers_file(out, trial)).student for trial in ("f1-1", "b-1"))
    assert found.champion.student.figures == own.figures
    assert (found.control_trial, found.control.student.figures) == ("b-1", control.figures)
    assert found.lacks == ()


def test_a_champion_that_is_its_own_control_stands_alone(out: Path, summary: Summary) -> None:
    first = summary.finalists[0]
    own = first.with_overrides(control=first.control.with_overrides(trials=first.trials))
    found = run_answers(out, summary.with_overrides(finalists=[own, *summary.finalists[1:]]), [])
    assert found.champion is not None
    assert (found.control, found.lacks) == (None, ())


def test_a_run_of_an_earlier_version_has_none_and_that_is_said(tmp_path: Path, summary: Summary) -> None:
    found = run_answers(tmp_path, summary, [])
    assert (found.champion, found.control) == (None, None)
    assert found.lacks == (
        "answers/f1-1.npz is missing: an earlier version tested this student, or the file was removed.",
    )


def test_without_the_controls_file_the_champion_is_shown(out: Path, summary: Summary) -> None:
    answers_file(out, "b-1").unlink()
    found = run_answers(out, summary, [])
    assert found.champion is not None
    assert (found.control, found.control_trial) == (None, None)
    assert found.lacks[0].startswith("answers/b-1.npz is missing")


def test_a_damaged_file_is_left_out_with_its_reason_and_without_its_folder(
    out: Path, summary: Summary
) -> None:
    answers_file(out, "f1-1").write_bytes(b"no archive")
    found = run_answers(out, summary, [])
    assert found.champion is None
    assert found.lacks[0].startswith("answers/f1-1.npz holds no answers that this version can read")
    assert str(out) not in found.lacks[0]


def test_answers_whose_figures_are_not_those_of_the_test_are_left_out(out: Path, summary: Summary) -> None:
    kept = read_answers(answers_file(out, "f1-1"))
    assert kept.teacher is not None
    same = {"f1-1": kept.student.figures | {"agreement": 0.5}, "teacher": kept.teacher.figures}
    later = {"f2-0": {"accuracy": 0.1}, "teacher": {"accuracy": 0.2}}  # of another search and its teacher
    assert run_answers(out, summary, [same, later]).champion is not None
    for who in ("f1-1", "teacher"):
        other = {**same, who: {**same[who], "ece": same[who]["ece"] + 0.01}}
        found = run_answers(out, summary, [other])
        assert found.champion is None
        assert found.lacks == (
            "answers/f1-1.npz is left out: its figures are not those of the test in the ledger.",
        )


def test_a_control_that_saw_other_images_is_left_out(out: Path, summary: Summary) -> None:
    SyntheticAnswers(images=44, classes=4).write(out, ["b-1"])
    found = run_answers(out, summary, [])
    assert found.champion is not None
    assert found.control is None
    assert found.lacks == ("answers/b-1.npz is of other images than those of the champion.",)
