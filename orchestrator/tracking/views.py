"""The pages on which people pick: MLflow's saved views of an experiment, and links to the ranked runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from orchestrator.terminal.masking import without_secrets
from orchestrator.tracking.names import GROUP_KIND, SHORT, mlflow_key
from trainables.config.metrics import RankBy

VIEW_KEY: Final = "best"
_TAG_PREFIX: Final = "mlflow.sharedViewState."
VIEW_TAG: Final = f"{_TAG_PREFIX}{VIEW_KEY}"
STUDENTS: Final = f"tags.kind != 'experiment' and tags.kind != '{GROUP_KIND}'"
RANKED_FILTER: Final = f"{STUDENTS} and attributes.status = 'FINISHED'"
_MAX_VIEW_PARAMS: Final = 40
_BEST: Final = "metrics.rank <= 100"
"""In a view by place: MLflow's page shows so many at once, and takes five seconds to sort 10,000 runs."""
_EPOCH_MS: Final = 1_700_000_000_000
"""When the first view is said to be from: the menu lists the newest first."""


@dataclass(frozen=True)
class _View:
    """One page: which runs, in which order, with which columns before the searched parameters."""

    key: str
    name: str
    filter: str
    order: str
    """A column's key; `{ranked}` and `{place}` stand for the metrics that rank."""
    ascending: bool
    metrics: Sequence[str]
    tags: Sequence[str]


# Few enough columns that the searched parameters, which stand right of them, fit on a wide screen.
_VIEWS: Final = (
    _View(
        VIEW_KEY,
        "Best",
        RANKED_FILTER,
        "{place}",
        True,
        ("{ranked}", "gain_over_control", "latency_ms", "params", "test_{ranked}"),
        ("champion", "kind", "objective"),
    ),
    _View(
        "pareto",
        "Pareto",
        f"{RANKED_FILTER} and metrics.pareto = 1",
        "metrics.`{ranked}`",
        False,
        ("{ranked}", "latency_ms", "params", "size_bytes", "pareto"),
        ("champion", "kind", "objective"),
    ),
    _View(
        "within_budget",
        "Within budget",
        f"{RANKED_FILTER} and metrics.within_budget = 1",
        "{place}",
        True,
        ("{ranked}", "latency_ms", "params", "size_bytes", "within_budget"),
        ("champion", "kind", "objective"),
    ),
    _View(
        "finalists",
        "Finalists (mean and spread)",
        f"tags.kind = '{GROUP_KIND}'",
        "{place}",
        True,
        (
            "{ranked}",
            "{ranked}_std",
            "seeds",
            "test_{ranked}",
            "gain_over_control",
            "gain_low",
            "gain_high",
            "latency_ms",
            "params",
        ),
        ("champion", "role", "objective"),
    ),
    _View(
        "failed",
        "Failed and why",
        f"{STUDENTS} and attributes.status = 'FAILED'",
        # By time MLflow shows the parent, with the broken ones folded away below it.
        "metrics.`epochs`",
        False,
        ("epochs",),
        ("reason", "objective"),
    ),
)


def shared_views(
    searched: Iterable[str], rank_by: RankBy = RankBy.ACCURACY, *, is_ranked: bool = True
) -> dict[str, str]:
    """By experiment tag the saved views: filter, order and columns of the page with the runs.

    They are MLflow's internal format (3.17), no public contract: an envelope with a name, as the menu of
    views asks for since 3.15, beside the plain fields that earlier ones read. `filtered_runs_url` works
    without it. `is_ranked` says whether students have the metric `rank`, which they get when the search is
    over; the order is that of the figure that ranks until then.
    """
    params = [mlflow_key(name) for name in sorted(searched)][:_MAX_VIEW_PARAMS]
    return {
        f"{_TAG_PREFIX}{view.key}": _envelope(view.name, _state(view, params, rank_by, is_ranked), number)
        for number, view in enumerate(_VIEWS)
    }


def view_names() -> tuple[str, ...]:
    """The names of the saved views, as MLflow's menu lists them."""
    return tuple(view.name for view in _VIEWS)


def ranked_runs_url(base_url: str, experiment_id: str) -> str:
    """The page with all finished students of an experiment, best first, in the shared view."""
    query = f"viewStateShareKey={VIEW_KEY}&workflowType=machine_learning"
    return f"{_page(base_url, experiment_id)}?{query}"


def filtered_runs_url(base_url: str, experiment_id: str, rank_by: RankBy = RankBy.ACCURACY) -> str:
    """The finished students by the figure that ranks, without the shared view: MLflow chooses the columns."""
    query = "&".join(
        (
            f"searchFilter={quote(RANKED_FILTER, safe='')}",
            f"orderByKey={quote(f'metrics.`{SHORT[rank_by]}`', safe='')}",
            "orderByAsc=false",
            "workflowType=machine_learning",
        )
    )
    return f"{_page(base_url, experiment_id)}?{query}"


def _state(view: _View, params: Sequence[str], rank_by: RankBy, is_ranked: bool) -> dict[str, Any]:
    ranked = SHORT[rank_by]
    by_place = view.order == "{place}"
    order = ("metrics.`rank`" if is_ranked else "metrics.`{ranked}`") if by_place else view.order
    is_long = by_place and is_ranked and view.filter.startswith(RANKED_FILTER)
    columns = [f"metrics.`{name.format(ranked=ranked)}`" for name in view.metrics]
    columns += [f"params.`{name}`" for name in params]
    columns += [f"tags.`{name}`" for name in view.tags]
    return {
        "searchFilter": f"{_BEST} and {view.filter}" if is_long else view.filter,
        "orderByKey": order.format(ranked=ranked),
        "orderByAsc": view.ascending if is_ranked or not by_place else False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "selectedColumns": columns,
    }


def _envelope(name: str, state: dict[str, Any], number: int) -> str:
    time_ms = _EPOCH_MS - number
    envelope = {"name": name, "createdAt": time_ms, "updatedAt": time_ms, "state": json.dumps(state)}
    return json.dumps({**state, **envelope})


def _page(base_url: str, experiment_id: str) -> str:
    return f"{without_secrets(base_url).rstrip('/')}/#/experiments/{experiment_id}/runs"
