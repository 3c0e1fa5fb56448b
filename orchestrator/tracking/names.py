"""What MLflow shows of an experiment: names, figures, parameters, and the links to the ranked runs."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from orchestrator.terminal.masking import data_without_secrets, without_secrets
from trainables.config import Role
from trainables.config.metrics import RankBy

VIEW_KEY: Final = "best"
VIEW_TAG: Final = f"mlflow.sharedViewState.{VIEW_KEY}"
RANKED_FILTER: Final = "tags.kind != 'experiment' and attributes.status = 'FINISHED'"
# Few enough that the searched parameters, which stand right of them, fit on a wide screen.
_COLUMNS: Final = ("gain_over_control", "latency_ms", "params")
_TAG_COLUMNS: Final = ("champion", "kind", "objective")
_MAX_VIEW_PARAMS: Final = 40

PARAM_CHARACTERS: Final = 6000
TAG_CHARACTERS: Final = 5000
_KEY_CHARACTERS: Final = 250
_FOREIGN: Final = re.compile(r"[^\w\-./: ]", re.ASCII)
_KINDS: Final[Mapping[Role, str]] = {
    Role.SEARCH: "trial",
    Role.FINALIST: "finalist",
    Role.BASELINE: "baseline",
}
# The runs table sorts its columns by name and cuts heads at about 14 characters.
SHORT: Final[Mapping[str, str]] = {
    RankBy.ACCURACY.value: "acc",
    RankBy.KNN_ACCURACY.value: "knn_acc",
    RankBy.PROBE_ACCURACY.value: "probe_acc",
    "agreement": "agree",
}
_SELECTION: Final = "selection/"


@dataclass(frozen=True)
class ParentFacts:
    """What the parent run says about the experiment."""

    name: str
    config: Mapping[str, Any]
    """The whole experiment as plain data; kept as the artifact `experiment.json`."""
    searched: Collection[str] = ()
    """Flat names that trials vary (`student.width`, `training.lr`); they are no constants of the parent."""
    constants: Mapping[str, Any] = field(default_factory=dict)
    """Further constants: fingerprints of teacher and cache, objective, scheduler."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of the libraries and of the code, by name."""
    summary: str = ""
    """One or two sentences in Markdown: what this experiment is."""
    rank_by: RankBy = RankBy.ACCURACY
    """The figure that students are ranked by."""

    def params(self) -> dict[str, str]:
        """The constants of the experiment, flat, as MLflow parameters."""
        flat = flat_params(self.config) | flat_params(self.constants)
        return {name: value for name, value in flat.items() if name not in self.searched}

    def document(self) -> dict[str, Any]:
        """The configuration without secrets, as that of a tracking URI."""
        return dict(data_without_secrets(self.config))

    def description(self, experiment_id: str) -> str:
        """The parent's note in Markdown: what it is, and how to find its students."""
        ranked = ranked_runs_url("", experiment_id)
        filtered = filtered_runs_url("", experiment_id, self.rank_by)
        return (
            f"## {self.name}\n\n{self.summary or 'A distillation experiment.'}\n\n"
            f"[Students, finalists and controls, best first]({ranked}) · [the same by filter]({filtered})\n\n"
            f"Filter: `{RANKED_FILTER}`, sorted by `{SHORT[self.rank_by]}`, the {self.rank_by.label} on the "
            "selection split at the best epoch. Pruned students are KILLED, those that broke are FAILED with "
            "the tag `reason`. The tag `kind` tells trials of the search from finalists and controls, and "
            "the tag `champion`, with a star before the name, marks the student to ship, whose means over "
            "its seeds are this run's figures `champion_...`. "
            "Constants are this run's parameters; a student's parameters are what the search varied. A "
            "finalist's `gain_over_control` is that figure on the test split less that of the run whose "
            "`trial_id` is in its tag `control`: cross-entropy with the same architecture, epochs and seed. "
            "`gain_same_compute` is that over the run in its tag `same_compute_control`, where there is one: "
            "cross-entropy for more epochs, which compute as much as the finalist's."
        )


def run_kind(role: Role) -> str:
    """The tag `kind` of a student's run: trial, finalist or baseline."""
    return _KINDS[role]


def run_name(trial: str, role: Role, objective: str, ordinal: int) -> str:
    """A short name for a run: a trial's place in the ledger (`0007 kd`, from 1), or a finalist's own id."""
    return f"{ordinal:04d} {objective}" if role is Role.SEARCH else trial


def rounded(value: float, digits: int = 5) -> float:
    """The value with so many significant digits; whole and non-finite numbers stay as they are."""
    if not math.isfinite(value) or value == int(value):
        return value
    return float(f"{value:.{digits}g}")


def mlflow_key(name: str) -> str:
    """A name with what MLflow refuses in keys replaced by `_`."""
    key = _FOREIGN.sub("_", name)[:_KEY_CHARACTERS]
    # MLflow reads keys as paths: no empty, `.` or `..` part, no slash at either end.
    parts = [part if part.strip(". ") else "_" * max(len(part), 1) for part in key.split("/")]
    return "/".join(parts)


def param_text(value: Any) -> str:
    """A value as MLflow keeps it: one spelling for each, since parameters are compared as text."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    text = without_secrets(text)
    if len(text) > PARAM_CHARACTERS:
        return text[: PARAM_CHARACTERS - 1] + "…"
    return text


def flat_params(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested plain data as flat parameters (`data.name`), without secrets; a list is JSON, None left out."""
    flat: dict[str, str] = {}
    for name, value in data_without_secrets(config).items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat |= flat_params(value, f"{path}.")
        elif value is not None:
            flat[mlflow_key(path)] = param_text(value)
    return flat


def summary_figures(
    best: Mapping[str, float], final: Mapping[str, float], *, epochs: int, best_epoch: int | None
) -> dict[str, float]:
    """The few figures that people rank by: those of the best epoch under short names, `acc_final`, epochs."""
    figures: dict[str, float] = {"epochs": epochs}
    if best_epoch is not None:
        figures["epoch_best"] = best_epoch
    for name, value in best.items():
        if name.startswith(_SELECTION):
            tail = name.removeprefix(_SELECTION)
            figures[SHORT.get(tail, tail)] = rounded(value)
    for figure in RankBy:
        if figure.metric in final:
            figures[f"{SHORT[figure]}_final"] = rounded(final[figure.metric])
    return figures


def ranked_view(searched: Iterable[str], rank_by: RankBy = RankBy.ACCURACY) -> str:
    """The value of the experiment tag `VIEW_TAG`: the page's filter, order and columns.

    It is MLflow's internal format (3.17), no public contract; `filtered_runs_url` works without it.
    """
    params = [mlflow_key(name) for name in sorted(searched)][:_MAX_VIEW_PARAMS]
    ranked = SHORT[rank_by]
    columns = [f"metrics.`{name}`" for name in (ranked, *_COLUMNS, f"test_{ranked}")]
    columns += [f"params.`{name}`" for name in params]
    columns += [f"tags.`{name}`" for name in _TAG_COLUMNS]
    return json.dumps(
        {
            "searchFilter": RANKED_FILTER,
            "orderByKey": _order(rank_by),
            "orderByAsc": False,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "selectedColumns": columns,
        }
    )


def ranked_runs_url(base_url: str, experiment_id: str) -> str:
    """The page with all finished students of an experiment, best first, in the shared view."""
    query = f"viewStateShareKey={VIEW_KEY}&workflowType=machine_learning"
    return f"{_page(base_url, experiment_id)}?{query}"


def filtered_runs_url(base_url: str, experiment_id: str, rank_by: RankBy = RankBy.ACCURACY) -> str:
    """The same order and filter without the shared view: MLflow chooses the columns."""
    query = "&".join(
        (
            f"searchFilter={quote(RANKED_FILTER, safe='')}",
            f"orderByKey={quote(_order(rank_by), safe='')}",
            "orderByAsc=false",
            "workflowType=machine_learning",
        )
    )
    return f"{_page(base_url, experiment_id)}?{query}"


def _order(rank_by: RankBy) -> str:
    return f"metrics.`{SHORT[rank_by]}`"


def _page(base_url: str, experiment_id: str) -> str:
    return f"{without_secrets(base_url).rstrip('/')}/#/experiments/{experiment_id}/runs"
