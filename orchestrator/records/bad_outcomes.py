"""Outcomes that a reader of the table might take for good ones, each said in a sentence."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.records.relations import LABELS_ALONE
from orchestrator.records.selection import PairedDifference
from orchestrator.records.student_figures import Finalist, Students
from orchestrator.records.summary import Summary, champions_group
from orchestrator.records.tables.more_columns import gain_text
from orchestrator.records.tables.students_table import control_name_of, named_controls
from orchestrator.terminal.formatting import counted, percent
from trainables.config import OBJECTIVE_CONFIGS


def bad_outcomes(summary: Summary) -> tuple[str, ...]:
    """What speaks against a run's champion or its figures, in sentences; none where all is well."""
    caveat = summary.ledger.caveat if summary.ledger else None
    told = (*summary.leaks, *_of_the_search(summary), *_of_one_class(summary), *_of_the_gain(summary))
    return told if caveat is None else (*told, caveat)


def _of_the_search(summary: Summary) -> Iterator[str]:
    """A ranking of students that are all the same says nothing."""
    reached = [t.selection_accuracy for t in summary.trials if t.status == "completed"]
    known = [accuracy for accuracy in reached if accuracy is not None]
    if len(known) > 1 and len(set(known)) == 1:
        yield (
            f"All {len(known)} completed trials have the same selection {summary.rank_by.label}, "
            f"{percent(known[0])} %, so their order says nothing: look at the learning rate, the data and "
            "the labels."
        )


def _of_one_class(summary: Summary) -> Iterator[str]:
    if summary.rank_by.is_of_features:  # of students whose own answers nobody taught
        return
    groups: list[tuple[str, Students]] = list(named_controls(summary))
    groups += [(f"finalist {number}", found) for number, found in enumerate(summary.finalists, start=1)]
    for name, students in groups:
        if students.answers_one_class:
            yield (
                f"A student of {name} gives every image of the test split the same class: its accuracy is "
                "the share of that class, and it has learned nothing."
            )


def _of_the_gain(summary: Summary) -> Iterator[str]:
    champion = champions_group(summary)
    if champion.is_own_control:
        yield from _of_labels_alone(summary)
        return
    gain, over = champion.test_gain, _over(summary, champion)
    helper = "the teacher" if _hears_teacher(champion.objective) else f"its objective ({champion.objective})"
    if gain.mean < 0:
        yield (
            f"The champion is below {over} on the test split, by {-100 * gain.mean:.2f} points: {helper} "
            "did not help it."
        )
    if gain.low is None:
        yield "One seed has no spread: whether the gain is more than chance is not known; raise budget.seeds."
    elif _holds_zero(gain):
        yield (
            f"The 95 % interval of the champion's gain over {over}, {gain_text(gain)} points, holds zero: "
            f"{counted(gain.n, 'seed')} do not show that {helper} helped it."
        )
    elif gain.low > 0:
        yield from _of_other_recipes(summary, champion)
        yield from _of_equal_compute(summary, champion)


def _of_equal_compute(summary: Summary, champion: Finalist) -> Iterator[str]:
    """A gain that longer training of a student alone may give as well."""
    longer = champion.same_compute
    if longer is not None and (longer.test_gain.low or 0) <= 0:
        names = {control.trials: name for name, control in named_controls(summary)}
        yield (
            f"Over {names.get(longer.control.trials, 'cross-entropy of the same compute')}, the champion's "
            f"gain is not shown: {gain_text(longer.test_gain)} points."
        )


def _of_labels_alone(summary: Summary) -> Iterator[str]:
    others = {trial.objective for trial in summary.trials} - {LABELS_ALONE}
    if others:
        whom = "with the teacher" if any(map(_hears_teacher, others)) else "of another objective"
        yield f"The champion learns from the labels alone: no student {whom} was better."


def _hears_teacher(objective: str) -> bool:
    known = OBJECTIVE_CONFIGS.get(objective)  # a summary of another version may have others
    return known is None or known().hears_teacher


def _of_other_recipes(summary: Summary, champion: Finalist) -> Iterator[str]:
    """Recipes that were worse on the selection split, over which the test split shows no gain."""
    names = {control.trials: name for name, control in named_controls(summary)}
    for other in champion.beside:
        if other.control.trials in names and (other.test_gain.low or 0) <= 0:
            yield (
                f"Over {names[other.control.trials]}, which was worse on the selection split, the champion's "
                f"gain is not shown: {gain_text(other.test_gain)} points."
            )


def _holds_zero(gain: PairedDifference) -> bool:
    return gain.low is not None and gain.high is not None and gain.low <= 0 <= gain.high


def _over(summary: Summary, champion: Finalist) -> str:
    return f"its control ({control_name_of(summary, champion)})"
