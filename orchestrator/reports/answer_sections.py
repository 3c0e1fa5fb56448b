"""The report's sections about single answers to the test split: reliability, classes, disagreements."""

from __future__ import annotations

from typing import Final

from orchestrator.reports.charts.answered import answered, who_answered
from orchestrator.reports.charts.class_accuracy import MOST_DRAWN, MOST_ROWS, class_chart
from orchestrator.reports.charts.reliability import reliability_chart
from orchestrator.reports.disagreements import disagreement_counts, disagreements, pictures_markup
from orchestrator.reports.markup import Part, note, section, text
from orchestrator.reports.run_facts import RunFacts

RELIABILITY: Final = "How far confidences are right"


def answer_parts(facts: RunFacts) -> list[Part]:
    """All of them; of a run of which no answers are kept, one that says so."""
    lacks = " ".join(facts.answers.lacks)
    if facts.answers.champion is None:
        told = (
            f"<p>{text(lacks)} So the page has no reliability diagram, no accuracy by class, and no images. "
            "<code>stillhouse evaluate FILE --data IMAGES --reliability PICTURE</code> draws the diagram of "
            "an exported student, and tells each class.</p>"
        )
        return [Part(section(RELIABILITY, told) if lacks else "")]
    return [_reliability(facts, lacks), _classes(facts), _disagreements(facts)]


def _reliability(facts: RunFacts, lacks: str) -> Part:
    chart = reliability_chart(answered(facts))
    if chart is None:
        return Part("")
    about = note(
        "Confidence is the probability of the class that is named. Bars below the dashed line are answers "
        "that are surer than they are right; ece is the mean gap to the line over all test images, in 15 "
        "equal bins.",
        who_answered(facts),
        lacks,
    )
    return Part(section(RELIABILITY, chart.markup, about), chart)


def _classes(facts: RunFacts) -> Part:
    kept = facts.answers.champion
    if kept is None:
        return Part("")
    chart, n_classes = class_chart(kept, answered(facts)), int((kept.images_C > 0).sum())
    some = ""
    if n_classes > MOST_DRAWN:
        rows = f", and in the table the worst {MOST_ROWS}" if n_classes > MOST_ROWS else ""
        some = f"Shown are the {MOST_DRAWN} of {n_classes:,} classes on which the champion is worst{rows}."
    about = note(
        "Share of the test images of a class that are named rightly, with 95 % intervals (Wilson) for the "
        "number of images: a class with few images has a wide one.",
        some,
    )
    return Part(section("Accuracy by class", chart.markup, about), chart)


def _disagreements(facts: RunFacts) -> Part:
    kept = facts.answers.champion
    counts = disagreement_counts(kept) if kept else ""
    if kept is None or not counts:
        return Part("")
    shown = disagreements(kept)
    unseen = "" if len(kept.pictures_KHWD) else "The images are neither grey nor coloured, so none is shown."
    about = note(
        "The surest first, where a disagreement is as sure as the less sure of the two; below each image its "
        "class and both answers with their confidence. Images are as the student is shown them, before "
        "pixels are normalised, and at most 96 pixels wide or high.",
        unseen,
    )
    head = "Where champion and teacher disagree most confidently"
    return Part(section(head, f"<p>{text(counts)}</p>", pictures_markup(shown), about if shown else ""))
