"""The evidence for objectives as a page in Markdown; its numbers come from a ledger and from benchmarks."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from orchestrator.config.loading import LoadedExperiment
from orchestrator.config.schema import ExperimentConfig
from orchestrator.config.teacher_schema import TeacherConfig
from orchestrator.records.events import StageEvent
from orchestrator.records.ledger import Ledger
from orchestrator.records.selection import PairedDifference
from orchestrator.reports.evidence import Evidence, Failed, SearchEvidence
from orchestrator.reports.method_evidence import is_significant
from orchestrator.reports.step_costs import COSTS, step_costs
from orchestrator.terminal.formatting import short_parameters
from trainables.config import ModelConfig

_BEGINS: Final = re.compile(r"^Experiment `([^`]+)`: ", re.MULTILINE)
HEAD: Final = (
    "objective",
    "mean, %",
    "std",
    "95 % interval",
    "over its CE, points",
    "over KD, points",
    "agrees with teacher, %",
    "ECE, %",
    "epoch / CE",
)
AGREEMENT: Final = HEAD.index("agrees with teacher, %")

READING: Final = (
    "Accuracies are on the test split. Differences are paired by seed, with 95 % t-intervals; bold ones "
    "leave out 0. The CE of a row is the nearest control above it: `ce` with the same architecture, "
    "resolution and epochs, and of the recipes that were trained the best on the selection split. Where an "
    "epoch computes more than 1.25 of its CE's, there may be a row `same compute`: that CE, stretched over "
    "as many epochs as compute as much. KD is `kd` at its defaults, with the same architecture and recipe as "
    "the row; where each objective is at its best, `kd` at its best. Intervals are not corrected for their "
    "number: of twenty true zeros one is expected to look like a difference. A trial that is drawn twice is "
    "trained and counted once."
)


@dataclass(frozen=True)
class Chapter:
    """One experiment of the page."""

    facts: str
    """What was run."""
    searches: Sequence[SearchEvidence]

    @property
    def text(self) -> str:
        """What was run, then one table a search and what it says in words."""
        parts = [self.facts]
        for evidence in self.searches:
            parts += [_heading(evidence, self.searches[0]), _table(evidence), _words(evidence)]
        return "\n\n".join(part for part in parts if part)


def methods_page(chapters: Iterable[str], *, title: str, steps: Mapping[str, float]) -> str:
    """The page: its chapters, and what a step costs.

    `steps` is, by objective, the cost of a training step over cross-entropy's.
    """
    parts = [f"# {title}", "Written by `stillhouse methods`; no number here was typed by hand.", READING]
    parts += chapters
    if steps:
        parts += [COSTS, step_costs(steps)]
    return "\n\n".join(parts) + "\n"


def chapters_of(page: str) -> dict[str, str]:
    """The chapters of a page that stands already, by the name of their experiment."""
    chapters = page.partition(COSTS)[0]
    begins = list(_BEGINS.finditer(chapters))
    ends = [*(one.start() for one in begins), len(chapters)][1:]
    return {one[1]: chapters[one.start() : end].strip() for one, end in zip(begins, ends, strict=True)}


def facts_of(loaded: LoadedExperiment, ledger: Ledger) -> str:
    """What was trained on what: the experiment, in its file's words too, and what the ledger says of it."""
    config = loaded.config
    stages = [event for event in ledger.events_of(StageEvent) if event.status == "finished"]
    data, training = config.data, config.training
    images = f"{data.train_limit:,} training images" if data.train_limit else "all training images"
    size = f", at {data.image_size}x{data.image_size} pixels" if data.image_size else ""
    seconds = sum(event.seconds or 0.0 for event in stages)
    text = (
        f"Experiment `{config.name}`: {data.name or data.factory}, {images}{size}. "
        f"{_taught_by(config, stages)}Student: "
        f"{_network(config.student)}, {training.epochs} epochs in batches of {training.batch_size}, "
        f"{config.budget.seeds} seeds for each row, or as many as its table says. Its stages took "
        f"{seconds / 60:.0f} minutes in all, those that were interrupted left out."
    )
    if caveat := ledger.mark().caveat:
        text += f" {caveat}"
    return "\n".join([text, "", "```text", *opening_comment(loaded.source), "```"])


def _taught_by(config: ExperimentConfig, stages: Sequence[StageEvent]) -> str:
    """The teachers and what the ledger says of them; nothing where the file has none."""
    if not config.has_teacher:
        return ""
    facts: dict[str, Any] = next((event.found for event in stages if event.stage == "teacher"), {})
    tested = next((event.found.get("teacher") for event in stages if event.stage == "test"), None)
    told = [f"{facts['params']:,} parameters"] if facts.get("params") else []
    told += [f"{100 * tested['accuracy']:.2f} % on the test split"] if tested else []
    teachers = " and ".join(map(_teacher, config.each_teacher))
    return f"Teacher: {teachers} ({', '.join(told) or 'not in the ledger'}). "


def opening_comment(path: Path) -> list[str]:
    """The lines of comment that a YAML file begins with, without their sign."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [
        line[1:].removeprefix(" ") for line in itertools.takewhile(lambda one: one.startswith("#"), lines)
    ]


def _teacher(teacher: TeacherConfig) -> str:
    if teacher.model is not None:
        return _network(teacher.model)
    return "imported logits" if teacher.imported else f"ONNX file {Path(str(teacher.checkpoint)).name}"


def _network(model: ModelConfig) -> str:
    width = f" of width {model.width}" if model.width else ""
    return f"{model.name or model.factory}{width}"


def _heading(evidence: SearchEvidence, first: SearchEvidence) -> str:
    names = list(dict.fromkeys(group.objective for group in evidence.groups))
    changed = {name: value for name, value in evidence.student.items() if first.student.get(name) != value}
    where = f", students with {short_parameters(changed)}" if changed else ""
    where += f", judged by {evidence.rank_by.label}" if evidence.rank_by.is_of_features else ""
    what = f"{len(names)} objectives" if len(names) > 2 else " and ".join(names)
    if evidence.is_tuned:
        return f"## {what}, each at the best of its share of {evidence.trials} trials{where}"
    if evidence.trials > len(evidence.groups):
        return f"## After a search of {evidence.trials} trials: {what}{where}"
    if len(names) < len(evidence.groups):
        return f"## {len(evidence.groups)} settings of {what}{where}"
    return f"## {what}, each at its defaults{where}"


def _table(evidence: SearchEvidence) -> str:
    """As Markdown; without the column of agreement where there was no teacher to agree with."""
    rows = []
    for controlled in evidence.by_control:
        control = controlled.control
        rows.append(_cells(f"control: {_name(control)}", control))
        rows += [_cells(f"other recipe: {_name(one)}", one) for one in controlled.beside]
        rows += [_cells(f"same compute: {_longer(one)}", one) for one in controlled.longer]
        rows += [_cells(_name(one), one) for one in controlled.finalists if one is not control]
    shown = [place for place in range(len(HEAD)) if place != AGREEMENT or any(row[place] for row in rows)]
    head, *lines = (f"| {' | '.join(cells[place] for place in shown)} |" for cells in (HEAD, *rows))
    return "\n".join([head, "|" + "---|" * len(shown), *lines])


def _cells(name: str, one: Evidence) -> tuple[str, ...]:
    return (
        name,
        f"{one.mean:.2f}",
        "" if one.std is None else f"{one.std:.2f}",
        "" if one.interval is None else f"[{one.interval[0]:.2f}, {one.interval[1]:.2f}]",
        _difference(one.over_ce),
        _difference(one.over_kd),
        "" if one.agreement is None else f"{one.agreement:.1f}",
        f"{one.ece:.2f}",
        f"{one.epoch_over_ce:.2f}",
    )


def _name(one: Evidence | Failed) -> str:
    return f"`{one.objective}`" + (f" ({short_parameters(one.parameters)})" if one.parameters else "")


def _longer(one: Evidence) -> str:
    """A control of the same compute, with its epochs, which are what is other in it."""
    others = {name: value for name, value in one.parameters.items() if name != "training.epochs"}
    return f"`{one.objective}` ({short_parameters({'training.epochs': one.epochs, **others})})"


def _difference(difference: PairedDifference | None) -> str:
    if difference is None:
        return ""
    if difference.low is None:
        return f"{difference.mean:+.2f}"
    text = f"{difference.mean:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}]"
    return f"**{text}**" if is_significant(difference) else text


def _words(evidence: SearchEvidence) -> str:
    """Which differences are more than noise, and which are not."""
    over_ce = [(_name(one), one.over_ce) for one in evidence.groups if one.over_ce]
    over_kd = [(_name(one), one.over_kd) for one in evidence.groups if one.over_kd]
    seeds = max(_seeds(evidence).values())
    fewer = ", ".join(f"{name} ({count})" for name, count in _seeds(evidence).items() if count < seeds)
    lines = [
        f"{seeds} seeds each, the same for all{' but ' if fewer else ''}{fewer}.",
        *(
            f"{_name(one)}: {len(one.reasons)} of {seeds} seeds failed and have no part in this: "
            f"{'; '.join(dict.fromkeys(one.reasons))}."
            for one in evidence.failures
        ),
        *(
            f"{_name(one)}: its control has another architecture or number of epochs; an earlier version "
            "trained one for all."
            for one in evidence.groups
            if one.lacks_own_control
        ),
        _sentence("Better than CE", [n for n, d in over_ce if is_significant(d) and d.mean > 0]),
        _sentence("Worse than CE", [n for n, d in over_ce if is_significant(d) and d.mean < 0]),
        _sentence("Not significantly different from CE", [n for n, d in over_ce if not is_significant(d)]),
        _at_the_same_compute(evidence),
        _sentence("Better than KD", [n for n, d in over_kd if is_significant(d) and d.mean > 0]),
        _sentence("Loses to KD", [n for n, d in over_kd if is_significant(d) and d.mean < 0]),
        _sentence("Below KD on average, not significantly", _below(over_kd)),
    ]
    return "\n".join(f"* {line}" for line in lines if line)


def _at_the_same_compute(evidence: SearchEvidence) -> str:
    """What is left of a gain where cross-entropy is trained for as many epochs as compute as much."""
    told = [
        f"{_name(one)} {_difference(one.over_same_compute)}"
        for one in evidence.groups
        if one.over_same_compute is not None
    ]
    return f"Over CE of the same compute, points: {'; '.join(told)}." if told else ""


def _seeds(evidence: SearchEvidence) -> dict[str, int]:
    """How many seeds each row is the mean of, by its name."""
    rows = [row for one in evidence.by_control for row in (one.control, *one.beside, *one.finalists)]
    return {_name(row): len(row.accuracies) for row in rows}


def _below(over_kd: Sequence[tuple[str, PairedDifference]]) -> list[str]:
    return [name for name, d in over_kd if d.mean < 0 and not is_significant(d)]


def _sentence(what: str, names: Sequence[str]) -> str:
    return f"{what}: {', '.join(names) or 'none'}."
