"""Answers of networks that nobody trained, in files as slots write them; and a front to pick from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from orchestrator.config.picking.figures import ACCURACY
from orchestrator.records.kept_answers import RunAnswers, answers_file, run_answers
from orchestrator.records.picking.champion import Ranking
from orchestrator.records.picking.picked import Picked, placed
from orchestrator.records.summary import Summary, champions_group
from trainables.data import ImageSplit
from trainables.evaluation.answers_file import write_answers
from trainables.evaluation.confusion import Answers, answers_of
from trainables.evaluation.disagreement import kept_answers

PARETO = (ACCURACY, "latency_ms", "params")


@dataclass(frozen=True)
class SyntheticAnswers:
    """How many there are, and to what; the same numbers give the same files."""

    images: int = 400
    classes: int = 10
    side: int = 12
    """Pixels; they are noise, of which no PNG is smaller than its pixels."""
    channels: int = 3
    hears_teacher: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes."""
        return tuple(f"class {number}" for number in range(self.classes))

    @cached_property
    def split(self) -> ImageSplit:
        """The images; their ids are no places."""
        draws = torch.Generator().manual_seed(3)
        shape = (self.images, self.channels, self.side, self.side)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=draws)
        numbers = torch.arange(self.images)
        return ImageSplit(pixels, numbers % self.classes, 2 * numbers)

    def said(self, seed: int, *, skill: float = 4.0) -> Answers:
        """What a network answers, the more often rightly the higher its skill is."""
        draws, labels_N = torch.Generator().manual_seed(seed), self.split.labels
        noise_NC = 2 * torch.randn(self.images, self.classes, generator=draws)
        logits_NC = noise_NC + skill * torch.nn.functional.one_hot(labels_N, self.classes)
        return answers_of([(logits_NC, labels_N)])

    def write(self, folder: Path, trials: Sequence[str]) -> None:
        """The file of each of these students of an output folder."""
        taught = self.said(99, skill=5.0) if self.hears_teacher else None
        for seed, trial in enumerate(trials):
            kept = kept_answers(self.said(seed), taught, self.split, self.names)
            write_answers(answers_file(folder, trial), kept)

    def beside(self, summary: Summary, folder: Path) -> tuple[Summary, RunAnswers]:
        """The summary as if its champion had been picked from a front, and what is kept beside it."""
        picked = picked_from_a_front(summary)
        self.write(folder, shown_trials(picked))
        return picked, run_answers(folder, picked, [])


def shown_trials(summary: Summary) -> list[str]:
    """The champion, and its control with each seed."""
    return [summary.champion.trial_id, *champions_group(summary).control.trials]


def picked_from_a_front(summary: Summary) -> Summary:
    """The summary as if its champion, the most accurate finalist, had been picked with `--pareto`."""
    ranking = Ranking(pareto=PARETO)
    finalists = {
        each.trials[0]: {
            ACCURACY: each.selection_mean,
            "latency_ms": each.latency_ms,
            "params": float(each.params),
        }
        for each in summary.finalists
    }
    trials = {
        row.id: {
            ACCURACY: row.selection_accuracy,
            "latency_ms": row.latency_ms,
            "params": float(row.params),
        }
        for row in summary.trials
        if row.selection_accuracy is not None and row.latency_ms is not None and row.params is not None
    }
    picked = Picked(pareto=PARETO, finalists=placed(finalists, ranking), trials=placed(trials, ranking))
    return summary.with_overrides(picked=picked)


def own_bins(confidence_N: Tensor, correct_N: Tensor, bins: int = 15) -> list[tuple[int, float, float]]:
    """Samples, mean confidence and accuracy of each bin that has any, one sample after the other."""
    members: list[list[tuple[float, float]]] = [[] for _ in range(bins)]
    for confidence, correct in zip(confidence_N.tolist(), correct_N.tolist(), strict=True):
        members[min(int(confidence * bins), bins - 1)].append((confidence, float(correct)))
    return [
        (len(each), sum(c for c, _ in each) / len(each), sum(r for _, r in each) / len(each))
        for each in members
        if each
    ]
