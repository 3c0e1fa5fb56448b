"""The best epoch is that of the figure that ranks, and a figure that does not rank costs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
from torch import nn

from tests.unit.trainables.training.small_courses import (
    SHORT,
    same_weights,
    small_course,
    small_workbench,
    weights_of,
)
from trainables.config.metrics import RankBy
from trainables.data import ImageSplit
from trainables.training.loop import train
from trainables.training.workbench import Workbench

pytestmark = pytest.mark.usefixtures("one_thread")
FEATURES = [figure for figure in RankBy if figure.is_of_features]
Told = dict[int, dict[str, float]]


class Scripted(Workbench):
    """Judges features as it was told to, epoch by epoch, and notes the weights that it was shown."""

    def will_say(self, *figures: float) -> None:
        self.figures = iter(figures)
        self.shown: list[Any] = []

    def features_worth(
        self,
        model: nn.Module,
        by: RankBy,
        split: ImageSplit,
        *,
        batch_size: int,
        stated: Mapping[str, str] = MappingProxyType({}),
    ) -> dict[str, float]:
        self.shown.append(weights_of(model))
        return {by.value: next(self.figures)}


def scripted(*figures: float) -> Scripted:
    plain = small_workbench()
    workbench = Scripted(plain.data, plain.views, view_seed=7, device=plain.device)
    workbench.will_say(*figures)
    return workbench


@pytest.mark.parametrize("by", FEATURES)
def test_every_epoch_tells_what_its_features_are_worth(by: RankBy) -> None:
    told: Told = {}
    course, workbench = replace(small_course(), rank_by=by), small_workbench()
    result = train(course, workbench, on_epoch=told.__setitem__)
    assert list(told) == [1, 2, 3, 4, 5]
    assert all(0 <= metrics[by.metric] <= 1 for metrics in told.values())
    assert all("selection/accuracy" in metrics for metrics in told.values())
    best = max(told, key=lambda epoch: (told[epoch][by.metric], -epoch))
    assert (result.best_epoch, result.best[by.metric]) == (best, told[best][by.metric])
    again = workbench.features_worth(course.model, by, workbench.data.selection, batch_size=512)
    assert again == {by.value: told[best][by.metric]}


def test_no_other_figure_is_told_than_the_one_that_ranks() -> None:
    for by in RankBy:
        told: Told = {}
        train(replace(small_course(), rank_by=by), small_workbench(), on_epoch=told.__setitem__)
        figures = {figure for figure in FEATURES for metrics in told.values() if figure.metric in metrics}
        assert figures == ({by} if by.is_of_features else set())


@pytest.mark.parametrize(
    ("figures", "best"), [((0.1, 0.9, 0.2, 0.9, 0.3), 2), ((0.5, 0.4, 0.3, 0.2, 0.1), 1)]
)
def test_the_weights_that_are_kept_are_those_of_the_best_figure(
    figures: tuple[float, ...], best: int
) -> None:
    course, workbench = replace(small_course(), rank_by=RankBy.KNN_ACCURACY), scripted(*figures)
    result = train(course, workbench, on_epoch=lambda *_: None)
    assert (result.best_epoch, result.best["selection/knn_accuracy"]) == (best, max(figures))
    assert same_weights(weights_of(course.model), workbench.shown[best - 1])


def test_of_a_mean_of_weights_the_mean_is_judged() -> None:
    course = replace(small_course(SHORT.with_overrides(ema=0.9)), rank_by=RankBy.PROBE_ACCURACY)
    workbench = scripted(0.1, 0.2, 0.3, 0.4, 0.5)
    train(course, workbench, on_epoch=lambda *_: None)
    assert same_weights(weights_of(course.model), workbench.shown[-1])
    plain = replace(small_course(), rank_by=RankBy.PROBE_ACCURACY)
    other = scripted(0.1, 0.2, 0.3, 0.4, 0.5)
    train(plain, other, on_epoch=lambda *_: None)
    assert not same_weights(workbench.shown[0], other.shown[0])
