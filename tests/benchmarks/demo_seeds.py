"""`python -m tests.benchmarks.demo_seeds`: the demo with several seeds, each from nothing, and one twice.

Prints a line a run and writes `out/demo_seeds/runs.json`. It holds the demo to two things: the 95 % interval
of the champion's test gain lies above zero with every seed, and the same seed gives the same figures again.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from orchestrator.config.loading import EXPERIMENTS_FOLDER
from orchestrator.records.summary import Summary, champions_group
from tests.benchmarks.surroundings import surroundings

OUT: Final = Path("out/demo_seeds")
SEEDS: Final = (0, 1, 2, 3, 4)
# Times, places and what is measured of time: all else that a summary says is to be the same again.
NOT_REPEATED: Final = frozenset({"seconds", "out", "uri", "path", "model_card", "mlflow"})
TIMED: Final = "latency"


@dataclass(frozen=True)
class DemoRun:
    """What one run of the demo found, in percent and points."""

    seed: int
    champion: str
    control: float
    test: float
    gain: float
    low: float
    high: float
    wall_s: float

    @property
    def helped(self) -> bool:
        """Whether the whole interval of the gain lies above zero."""
        return self.low > 0

    def line(self) -> str:
        """The run on one line."""
        return (
            f"seed {self.seed}: control {self.control:.2f} %, champion {self.test:.2f} %, "
            f"gain {self.gain:+.2f} [{self.low:+.2f}, {self.high:+.2f}], {self.wall_s:.0f} s, {self.champion}"
        )


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0 when both claims hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.demo_seeds", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="the first is run twice")
    given = parser.parse_args(arguments)
    runs, documents = [], []
    for name, seed in [*((f"seed-{seed}", seed) for seed in given.seeds), ("again", given.seeds[0])]:
        summary, wall_s = _demo(seed, OUT / name)
        runs.append(_figures(seed, summary, wall_s))
        documents.append(repeatable(summary.plain()))
        print(runs[-1].line(), flush=True)
    differing = differences(documents[0], documents[-1])
    helped = sum(run.helped for run in runs[:-1])
    where = surroundings("ray", "torch")
    print(f"the gain's interval lies above zero with {helped} of {len(runs) - 1} seeds")
    print(
        f"seed {given.seeds[0]} again: {'the same' if not differing else 'not the same: ' + str(differing)}"
    )
    print(where)
    found = {"runs": [asdict(run) for run in runs], "differing": differing, "where": where}
    (OUT / "runs.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return int(bool(differing) or helped < len(runs) - 1)


def repeatable(document: Any) -> Any:
    """A summary without what no second run could repeat."""
    if isinstance(document, Mapping):
        kept = {key: value for key, value in document.items() if key not in NOT_REPEATED}
        return {key: repeatable(value) for key, value in kept.items() if not key.startswith(TIMED)}
    if isinstance(document, list | tuple):
        # Trials are listed as they began to train, in two slots at once.
        if document and all(isinstance(entry, Mapping) and "id" in entry for entry in document):
            document = sorted(document, key=lambda entry: str(entry["id"]))
        return [repeatable(entry) for entry in document]
    return document


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Where two documents differ, as paths of keys."""
    if isinstance(one, Mapping) and isinstance(other, Mapping) and one.keys() == other.keys():
        found = [differences(one[key], other[key], f"{place}.{key}") for key in one]
        return [path for paths in found for path in paths]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        found = [differences(*pair, f"{place}.{n}") for n, pair in enumerate(zip(one, other, strict=True))]
        return [path for paths in found for path in paths]
    return [] if one == other else [place.removeprefix(".")]


def _demo(seed: int, folder: Path) -> tuple[Summary, float]:
    """The summary of one run from nothing, and the seconds that the whole command took."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shipped = (EXPERIMENTS_FOLDER / "digits.yaml").read_text(encoding="utf-8")
    text, changed = re.subn(r"^seed: \d+$", f"seed: {seed}", shipped, flags=re.MULTILINE)
    # The same figures again are promised of students that are trained one by one.
    text += "\ncluster: {students_per_slot: 1}\n"
    if changed != 1:
        raise ValueError(f"digits.yaml has {changed} lines that set the seed; this script changes one")
    file = folder / "digits.yaml"
    file.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "orchestrator", "run", str(file), "--out", str(folder / "run"), "--json"]
    began = time.monotonic()
    with (folder / "log").open("w", encoding="utf-8") as log:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=log)
    wall_s = time.monotonic() - began
    document = json.loads((folder / "run" / "summary.json").read_text(encoding="utf-8"))
    return Summary.from_plain(document), wall_s


def _figures(seed: int, summary: Summary, wall_s: float) -> DemoRun:
    best = champions_group(summary)
    gain = best.test_gain
    if gain.low is None or gain.high is None:
        raise ValueError("one seed has no interval; the demo's budget.seeds must be two or more")
    return DemoRun(
        seed=seed,
        champion=summary.champion.trial_id,
        control=100 * best.control.test_mean,
        test=100 * best.test_mean,
        gain=100 * gain.mean,
        low=100 * gain.low,
        high=100 * gain.high,
        wall_s=wall_s,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
