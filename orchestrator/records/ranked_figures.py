"""How the figure that ranks students is shown: what kind of accuracy it is, in heads, cells and sentences."""

from __future__ import annotations

import statistics
from types import MappingProxyType
from typing import Final

from orchestrator.records.selection import Figures, SelectedChampion
from orchestrator.records.student_figures import Students
from orchestrator.records.summary import MemberFigures, Summary, TeacherFigures
from orchestrator.terminal.formatting import percent
from trainables.config.metrics import RankBy

WORTH: Final = MappingProxyType(
    {
        RankBy.KNN_ACCURACY: "kNN accuracy is what the 20 nearest labelled training images, by the network's "
        "features, say of an image.",
        RankBy.PROBE_ACCURACY: "Probe accuracy is that of logistic regression on the network's features, "
        "fitted to labelled training images.",
    }
)


def splits(summary: Summary) -> str:
    """What the figures of both splits are, and what they decided; a sentence or two."""
    return (
        f"Selection is the {summary.rank_by.label} of a student's best epoch on the selection split, which "
        "chose that epoch and the champion; test was read once, at the end."
    )


def worth(summary: Summary) -> list[str]:
    """What the figure that ranks students is, in sentences; nothing where it is accuracy."""
    if not summary.rank_by.is_of_features:
        return []
    return [WORTH[summary.rank_by], "Accuracy, in brackets, is that of a network's own answers."]


def teachers_test(summary: Summary) -> float | None:
    """What the teacher reaches on the test split of the figure that ranks students; none if not known."""
    teacher = summary.teacher
    if teacher is None:
        return None
    return teacher.test_ranked if summary.rank_by.is_of_features else teacher.test_accuracy


def claims_of(champion: SelectedChampion, tested: Figures, figure: RankBy) -> dict[str, float]:
    """A figure of the champion: means over its seeds, and what the exported one reached; fractions."""
    records = champion.group.records
    tests = [tested[record.trial][figure] for record in records]
    return {
        f"selection_{figure}_mean": statistics.fmean(record.best[figure.metric] for record in records),
        # Not fmean, whose last bit may differ: what was exported is known by these numbers.
        f"test_{figure}_mean": sum(tests) / len(tests),
        f"selection_{figure}": champion.record.best[figure.metric],
        f"test_{figure}": tested[champion.record.trial][figure],
    }


def column(summary: Summary, name: str) -> str:
    """The head of a column, which says what kind of accuracy it shows where that is not the usual one."""
    if not summary.rank_by.is_of_features:
        return name
    head, comma, unit = name.partition(", ")
    label = summary.rank_by.label
    kinds = {
        "selection": f"selection {label}",
        "test": f"test {label}",
        "test gain over its control": f"gain in test {label} over its control",
    }
    return f"{kinds.get(head, head)}{comma}{unit}"


def teacher_cells(summary: Summary, teacher: TeacherFigures) -> tuple[str, str]:
    """On the selection split, where its features are not judged, and on the test split."""
    if not summary.rank_by.is_of_features:
        tested = accuracy_text(teacher.test_accuracy, None, teacher.test_balanced_accuracy)
        return percent(teacher.selection_accuracy), tested
    ranked = "" if teacher.test_ranked is None else f"{percent(teacher.test_ranked)} "
    return _own(teacher.selection_accuracy), f"{ranked}{_own(teacher.test_accuracy)}"


def member_cells(summary: Summary, member: MemberFigures) -> tuple[str, str]:
    """What one of several teachers reached on the selection split and on the test split."""
    shown = _own if summary.rank_by.is_of_features else percent
    return shown(member.selection_accuracy), shown(member.test_accuracy)


def _own(accuracy: float | None) -> str:
    """An accuracy of a network's own answers, where the column shows another figure."""
    return f"(accuracy {percent(accuracy)})"


def test_text(summary: Summary, students: Students) -> str:
    """What students reached on the test split, in percent, with their own accuracy where another ranks."""
    if not summary.rank_by.is_of_features:
        return accuracy_text(students.test_mean, students.test_std, students.test_balanced_accuracy)
    return f"{percent(students.test_mean, students.test_std)} {_own(students.test_own_accuracy)}"


def accuracy_text(mean: float | None, std: float | None, balanced: float | None) -> str:
    """An accuracy in percent, with the balanced one behind it where classes are uneven."""
    return percent(mean, std) + ("" if balanced is None else f" (balanced {percent(balanced)})")
