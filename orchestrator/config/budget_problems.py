"""Whether an experiment's budget of trials, and its batches, are such as its space can keep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from orchestrator.config.asked_features import batch_contrasters
from orchestrator.config.schema import ExperimentConfig
from orchestrator.config.validation_messages import Problem
from search_spaces.domains import Range
from search_spaces.space import SpaceConfig
from trainables.config.training import Sampling

ROWS_PER_WORKER: Final = 2
"""The fewest that batch statistics of a worker's own share can be taken of."""

PARTNERED: Final = 0.9
"""The share of samples with another one of their class beside them from which on nothing is said."""


def budget_problems(config: ExperimentConfig, space: SpaceConfig) -> Iterator[Problem]:
    """A grid without room for its points; objectives compared with unequal trials, or without a finalist."""
    budget, objectives = config.budget, len(space.objective_names)
    if space.search.algorithm == "grid" and (size := space.grid_size()) > budget.trials:
        text = f"found {budget.trials}; the grid of space {space.name} has {size} points: allow them"
        yield Problem(("budget", "trials"), text)
    if not space.search.each_objective:
        return
    compared = f"search.each_objective of space {space.name} compares {objectives} objectives"
    if rest := budget.trials % objectives:
        fewer, more = budget.trials - rest, budget.trials - rest + objectives
        allowed = f"{fewer} or {more}" if fewer else str(more)
        text = f"found {budget.trials}; {compared}, each with as many trials: take {allowed}"
        yield Problem(("budget", "trials"), text)
    if budget.finalists < objectives:
        text = f"found {budget.finalists}; {compared}, the best of each a finalist: allow {objectives}"
        yield Problem(("budget", "finalists"), text)


def batch_notes(config: ExperimentConfig, space: SpaceConfig, counts: Sequence[int]) -> list[str]:
    """A warning where objectives compare images of one class in batches that hold few such; sentences.

    `counts` are the training samples of each class.
    """
    names, sampling, size = batch_contrasters(space), config.training.sampling, smallest_share(config, space)
    share = _partnered(counts, size, sampling) if names else 1.0
    if share >= PARTNERED:
        return []
    several = len(names) > 1
    return [
        f"warning: objective{'s' * several} {', '.join(names)} of space {space.name} "
        f"compare{'' if several else 's'} the images of a class in a batch, and of the {size} that a worker "
        f"has at once about {100 * (1 - share):.0f} % are the only one of their class (sampling {sampling}); "
        "`training: {sampling: pairs}` draws two of a class at a time"
    ]


def smallest_share(config: ExperimentConfig, space: SpaceConfig) -> int:
    """The fewest samples of a batch that a worker may have at once."""
    return min(_batch_sizes(config, space)) // config.cluster.workers_per_slot


def _partnered(counts: Sequence[int], size: int, sampling: Sampling) -> float:
    """The expected share of so many samples that have another one of their class among them.

    Each is taken for drawn by itself: 1 - Σ_c p_c (1 - p_c)^(size - 1).
    """
    if sampling is Sampling.PAIRS:
        return 1.0
    present = [count for count in counts if count > 0]
    weights = present if sampling is Sampling.NATURAL else [1] * len(present)
    shares = [weight / sum(weights) for weight in weights]
    return 1 - sum(share * (1 - share) ** (size - 1) for share in shares)


def _batch_sizes(config: ExperimentConfig, space: SpaceConfig) -> list[int]:
    """Those at the ends of what the space says, or the recipe's."""
    own = config.training.batch_size
    return [int(corner.get("batch_size", own)) for corner in space.training.corners()]


def batch_problems(config: ExperimentConfig, space: SpaceConfig) -> Iterator[tuple[bool, Problem]]:
    """Batches without room for what shares them; and whether that stands in the space's file.

    Workers share a batch, pairs of a class fill it, and unlabelled images may be their part of it.
    """
    own, workers = config.training.batch_size, config.cluster.workers_per_slot
    sizes = _batch_sizes(config, space)
    if workers > 1 and min(sizes) < ROWS_PER_WORKER * workers:
        text = (
            f"found {workers}, which share batches of {min(sizes)} samples; allowed: at most "
            f"{min(sizes) // ROWS_PER_WORKER or 1}, so that each has {ROWS_PER_WORKER} samples or more"
        )
        yield False, Problem(("cluster", "workers_per_slot"), text)
    # Between two even ends of a domain, which are all that is tried elsewhere, lie odd numbers.
    sampling, searched = config.training.sampling, space.training.dimensions().get("batch_size")
    if (
        isinstance(searched, Range)
        and searched.low < searched.high
        and (searched.step or 1) % sampling.together
    ):
        text = (
            f"found {searched.kind}, which gives odd numbers too; sampling {sampling} of {config.name} "
            "needs even ones: take qrandint with a step of 2, or a choice"
        )
        yield True, Problem(("training", "batch_size"), text)
    unlabelled = config.data.unlabelled
    if unlabelled is not None and unlabelled.share < 1 and min([own, *sizes]) < 2 * sampling.together:
        share, single = f"{unlabelled.share:g}", "one sample" if sampling.together == 1 else "one pair"
        text = f"found {share}; a batch of {single} cannot hold both kinds; allowed: 1, or larger batches"
        yield False, Problem(("data", "unlabelled", "share"), text)
