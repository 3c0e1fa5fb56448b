"""What a training step of each objective costs, as `make bench` measured it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from orchestrator.reports.method_evidence import KD
from trainables.config import OBJECTIVE_CONFIGS, Need
from trainables.config.objective_base import EMBEDDING
from trainables.errors import StillhouseError
from trainables.foreign_files import foreign_file

STEP: Final = "objective_step_over_ce."
COSTS: Final = "## What a step costs"
_ROW: Final = re.compile(r"^\| `(\w+)` \| ([0-9.]+) \|", re.MULTILINE)
DEAR: Final = 1.3
"""A step that costs so many of cross-entropy's, or more, is explained."""


def read_steps(path: Path) -> dict[str, float]:
    """The cost of a step by objective, from a file of benchmarks; none when there is no such file.

    Raises:
        StillhouseError: the file is no file of benchmarks.
    """
    if not path.exists():
        return {}
    with foreign_file(
        lambda why: StillhouseError(f"{path} is no file of benchmarks ({why}); write it with `make bench`")
    ):
        entries: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return {
            name.removeprefix(STEP): float(entry["value"])
            for name, entry in entries.items()
            if name.startswith(STEP)
        }


def steps_told(page: str) -> dict[str, float]:
    """The costs that a page of `stillhouse methods` has already, as it shows them."""
    return {name: float(cost) for name, cost in _ROW.findall(page.partition(COSTS)[2])}


def step_costs(steps: Mapping[str, float]) -> str:
    """A table of all that was measured; what is dear is explained."""
    rows = [
        f"| `{name}` | {cost:.2f} | {_why(name) if cost > DEAR else ''} |"
        for name, cost in sorted(steps.items(), key=lambda one: one[1])
    ]
    reading = (
        "A training step with the teacher's answers from the cache, over one of cross-entropy, as "
        f"`make bench` measures it (`{STEP}NAME`)."
    )
    return "\n".join([reading, "", "| objective | step / CE | why |", "|---|---|---|", *rows])


def _why(name: str) -> str:
    """What makes a step of an objective dear, by what its configuration asks for."""
    config = OBJECTIVE_CONFIGS[name]()
    reasons = []
    if len(config.banks) > 1:
        how = "all in one pass" if config.one_pass else "each a pass of its own"
        reasons.append(f"the student sees {len(config.banks)} views of each sample, {how}")
    if config.pair_mixing is not None:
        reasons.append("mixed images pass through the network beside the others")
    if set(config.student_features) - {EMBEDDING}:
        reasons.append("feature maps pass through modules of the objective")
    if Need.ATTACK in config.needed:
        reasons.append("adversarial images take a pass through the student for each step of the attack")
    if Need.DENSE_LOGITS in config.needed:
        reasons.append("the classifier is applied at each position of the last feature map")
    if config.with_peers:
        reasons.append(f"{config.n_networks} networks answer and are trained")
    elif Need.ROWS in config.needed:
        reasons.append("a table of each sample's last answer is read and written")
    return "; ".join(reasons) or f"its own arithmetic on the logits; {KD} costs less"
