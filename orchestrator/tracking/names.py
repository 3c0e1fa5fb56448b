"""What MLflow shows of an experiment: names of runs, figures and parameters."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final

from orchestrator.terminal.masking import data_without_secrets, without_secrets
from trainables.config import Role
from trainables.config.metrics import RankBy

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
GROUP_KIND: Final = "group"
"""The tag `kind` of the run above the seeds of a finalist or a control."""
_SELECTION: Final = "selection/"


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
