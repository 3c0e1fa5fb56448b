from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.config.loading import load_experiment
from orchestrator.pipeline.cache_stage import pace
from orchestrator.pipeline.context import Run
from orchestrator.pipeline.stages import Stages
from orchestrator.pipeline.teacher_stage import teacher_request
from orchestrator.pipeline.workers import Workers
from orchestrator.records.ledger import Ledger
from orchestrator.terminal.console import Console
from trainables.config import ViewsConfig


@pytest.mark.parametrize(
    ("done", "seconds", "said"),
    [
        (0, 12.0, ""),
        (5_000, 2.0, "2,500 answers/s, 2 s left"),
        (10, 10.0, "1 answers/s, 2 h 47 min left"),
        (10_000, 4.0, "2,500 answers/s, 0 s left"),
    ],
)
def test_the_pace_of_the_teacher_tells_the_time_that_is_left(done: int, seconds: float, said: str) -> None:
    assert pace(done, 10_000, seconds) == said


def run_with(views: ViewsConfig, folder: Path) -> Run:
    loaded = load_experiment("digits")
    loaded = replace(loaded, config=loaded.config.with_overrides(views=views))
    ledger, console = Ledger(folder), Console(out=io.StringIO())
    workers = Workers(loaded.config, folder, console)
    return Run(loaded, folder, ledger, Stages(ledger, console), workers, console)


def test_more_cached_views_leave_the_teacher_as_it_is_and_another_recipe_does_not(tmp_path: Path) -> None:
    views = load_experiment("digits").config.views
    more = views.with_overrides(weak=views.weak.with_overrides(views=views.weak.views + 5))
    other = views.with_overrides(weak=views.weak.with_overrides(recipe=views.strong.recipe))
    keys = [teacher_request(run_with(choice, tmp_path))[1] for choice in (views, more, other)]
    assert keys[0] == keys[1] != keys[2]
    request, _ = teacher_request(run_with(more, tmp_path))
    assert request.views.weak.views == request.training.epochs
