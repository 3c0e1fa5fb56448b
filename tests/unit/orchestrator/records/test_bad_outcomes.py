"""Outcomes that speak against a run's champion or figures are said."""

from __future__ import annotations

import io

import pytest

from orchestrator.pipeline.finished import champion_lines, show
from orchestrator.records.bad_outcomes import bad_outcomes
from orchestrator.records.selection import PairedDifference
from orchestrator.records.summary import Summary
from orchestrator.terminal.console import Console


def with_gain(summary: Summary, mean: float, low: float | None, high: float | None) -> Summary:
    gain = PairedDifference(n=3, mean=mean, std=None, low=low, high=high)
    best = summary.finalists[0].with_overrides(test_gain=gain)
    return summary.with_overrides(finalists=(best, *summary.finalists[1:]))


def with_accuracies(summary: Summary, *accuracies: float) -> Summary:
    trials = [
        summary.trials[0].with_overrides(id=f"t{number}", status="completed", selection_accuracy=accuracy)
        for number, accuracy in enumerate(accuracies)
    ]
    return summary.with_overrides(trials=trials)


def test_a_champion_that_is_better_beyond_doubt_needs_no_warning(summary: Summary) -> None:
    assert bad_outcomes(with_accuracies(summary, 0.9, 0.8)) == ()


def test_splits_that_share_images_are_said_first_and_kept_in_the_document(summary: Summary) -> None:
    sentence = "3 of 20 test images are in the training split too, by content: they count."
    leaking = with_accuracies(summary, 0.9, 0.8).with_overrides(leaks=(sentence,))
    assert bad_outcomes(leaking) == (sentence,)
    assert Summary.from_plain(leaking.plain()) == leaking
    assert "leaks" not in summary.plain()


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        ((-0.02, -0.03, -0.01), ["The champion is below its control (control) on the test split, by 2.00"]),
        ((-0.01, -0.03, 0.01), ["The champion is below", "-1.00 [-3.00, +1.00] points, holds zero"]),
        ((0.01, 0.0, 0.02), ["holds zero: 3 seeds do not show that the teacher helped it"]),
        ((0.01, None, None), ["One seed has no spread"]),
    ],
)
def test_a_gain_that_is_none_is_said(
    summary: Summary, gain: tuple[float, float | None, float | None], words: list[str]
) -> None:
    told = bad_outcomes(with_gain(with_accuracies(summary, 0.9, 0.8), *gain))
    assert len(told) == len(words)
    assert all(word in sentence for word, sentence in zip(words, told, strict=True))


def test_a_student_that_gives_every_image_one_class_is_named(summary: Summary) -> None:
    first, second = summary.finalists
    control = first.control.with_overrides(answered_classes=1)
    shown = summary.with_overrides(
        finalists=(
            first.with_overrides(control=control, answered_classes=10),
            second.with_overrides(control=control, answered_classes=1),
        )
    )
    told = [sentence for sentence in bad_outcomes(shown) if "the same class" in sentence]
    assert [sentence.split(" gives")[0] for sentence in told] == [
        "A student of control",
        "A student of finalist 2",
    ]


def test_trials_that_are_all_the_same_are_no_ranking(summary: Summary) -> None:
    (told,) = bad_outcomes(with_accuracies(summary, 0.5604, 0.5604, 0.5604))
    assert told.startswith("All 3 completed trials have the same selection accuracy, 56.04 %")
    assert bad_outcomes(with_accuracies(summary, 0.5604)) == ()


def test_warnings_stand_on_the_console_below_the_champion(summary: Summary) -> None:
    out = io.StringIO()
    show(with_gain(summary, 0.0, -0.01, 0.01), Console(out=out), ui_command="stillhouse ui")
    lines = out.getvalue().splitlines()
    (place,) = (number for number, line in enumerate(lines) if line.startswith("warning: "))
    assert "holds zero" in lines[place]
    assert lines[place - 3].startswith("champion: finalist 1, kd, 9,610 parameters")


def test_the_champions_lines_tell_means_from_the_exported_seed(summary: Summary) -> None:
    assert champion_lines(summary)[1:] == (
        "  means over 3 seeds: selection 95.00 %, test 94.00 %",
        "  exported: f1-1, the seed with the best selection accuracy: selection 96.00 %, test 95.00 %",
    )
