"""How a search space lets its points be proposed and ranked: searcher, first points, figure, costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from search_spaces.scheduler_config import FifoScheduler, SchedulerBase
from search_spaces.sections import Section
from trainables.config import Config, Cost
from trainables.config.base import Scalar
from trainables.config.metrics import RankBy
from trainables.config.objectives import OBJECTIVE_CONFIGS

Point = Annotated[dict[str, Scalar], Field(min_length=1)]


def _points_tag(value: object) -> str:
    return "list" if isinstance(value, list | tuple) else "word"


def _is_accuracy(figure: RankBy) -> bool:
    return figure is RankBy.ACCURACY


def _are_none(costs: Sequence[Cost]) -> bool:
    return not costs


class SearchConfig(Config):
    """How points are proposed."""

    algorithm: Literal["random", "grid", "optuna"] = Field(
        "random", description="random draws, every combination, or Optuna's TPE"
    )
    points_to_evaluate: Annotated[
        Annotated[Literal["defaults"], Tag("word")] | Annotated[tuple[Point, ...], Tag("list")],
        Discriminator(_points_tag),
    ] = Field(
        "defaults",
        description="tried first: the papers' defaults, or a list, as [{temperature: 4, student.width: 8}]",
    )
    each_objective: bool = Field(
        False,
        exclude_if=lambda each: not each,
        description="every objective gets as many trials as the others, in turns, and its best one is a "
        "finalist: for comparisons of objectives, each at its best",
    )
    rank_by: RankBy = Field(
        RankBy.ACCURACY,
        exclude_if=_is_accuracy,  # left out of plain data, as `minimise`
        description="the figure that epochs, students and finalists are ranked by: accuracy; or, of what the "
        "features of students without labels are worth, knn_accuracy (the nearest training images vote) or "
        "probe_accuracy (logistic regression on frozen features), of at most 20,000 training images, at the "
        "price of a pass over these with every epoch",
    )
    minimise: tuple[Cost, ...] = Field(
        (),
        # Left out of plain data where there are none: other searches keep the ids that they had before.
        exclude_if=_are_none,
        description="costs that optuna weighs against that figure, as [params] or [latency_ms, params]",
    )

    @field_validator("minimise")
    @classmethod
    def _each_once(cls, costs: tuple[Cost, ...]) -> tuple[Cost, ...]:
        for cost in costs:
            if costs.count(cost) > 1:
                raise ValueError(f"the list holds {cost.value!r} twice")
        return costs


def why_not_each(search: SearchConfig) -> tuple[tuple[str, str], str] | None:
    """The key, and the reason, for which a searcher cannot take objectives in turns; none where it can."""
    if search.each_objective and search.algorithm != "random":
        return (
            ("search", "algorithm"),
            f"{search.algorithm} chooses the objectives itself; with search.each_objective allowed: random",
        )
    return None


def why_not_minimised(search: SearchConfig, scheduler: SchedulerBase) -> tuple[tuple[str, str], str] | None:
    """The key, and the reason, for which searcher or scheduler cannot weigh costs; none where they can."""
    if search.minimise and search.algorithm != "optuna":
        return (
            ("search", "algorithm"),
            f"{search.algorithm} weighs no costs against {search.rank_by.label}; with search.minimise "
            "allowed: optuna",
        )
    if search.minimise and not isinstance(scheduler, FifoScheduler):
        return (
            ("scheduler", "name"),
            f"it judges trials by {search.rank_by.label} alone, so it would stop the small students that "
            "search.minimise asks for; with search.minimise allowed: fifo",
        )
    return None


def why_not_ranked(search: SearchConfig, objectives: Mapping[str, Section]) -> str | None:
    """The reason for which accuracy cannot rank the students of these objectives; none where it can.

    It says nothing where no objective, with none of its hyper-parameters here, teaches a student's answers.
    """
    if search.rank_by.is_of_features or not objectives:
        return None
    for name, section in objectives.items():
        if any(OBJECTIVE_CONFIGS[name].from_plain(corner).learns_classes for corner in section.corners()):
            return None
    who = f"{', '.join(objectives)} teach{'' if len(objectives) > 1 else 'es'}"
    features = " or ".join(figure for figure in RankBy if figure.is_of_features)
    return (
        f"with these hyper-parameters {who} the student features and no classes, so "
        f"its accuracy is that of chance; allowed: {features}, or a weight of the labels above 0"
    )
