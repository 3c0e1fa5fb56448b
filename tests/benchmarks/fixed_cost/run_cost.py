"""What a run costs beside its training: CPU seconds of all its processes, and those of an earlier version.

`python -m tests.benchmarks.fixed_cost.run_cost [COMMIT]` runs this tree, or a commit, once, and prints a
table of the processes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.benchmarks.figures import Bound, Figure
from tests.benchmarks.fixed_cost.cpu_times import CpuTimes, cpu_times
from tests.benchmarks.slot_searches import scratch_folder
from tests.benchmarks.surroundings import surroundings

ROOT: Final = Path(__file__).parents[3]
BASE: Final = "b2acca49681f25cf0d581a0dd208816e4065e19f"
"""The version that is measured beside this one: the last in which each slot was four processes."""
SHARE: Final = Bound(0.5)
ROUNDS: Final = 2


def run_fixed_cpu_s() -> Figure:
    """CPU seconds of a run of digits whose teacher and students train one epoch, over those of `BASE`.

    Raises:
        LookupError: there is no repository here, or it has not that commit.
    """
    ours: list[CpuTimes] = []
    theirs: list[CpuTimes] = []
    with scratch_folder() as folder, checked_out(BASE, folder / "base") as base:
        for number in range(ROUNDS):
            # In turns, each first once: whatever else the machine does falls on both.
            pair = [(ROOT, ours), (base, theirs)]
            for tree, found in pair if number % 2 else reversed(pair):
                found.append(measured(tree, folder / f"{tree.name}-{number}"))
    our_s, their_s = (sum(run.total_s for run in runs) / ROUNDS for runs in (ours, theirs))
    largest = ", ".join(
        f"{name} {cpu_s:.1f} s" + (f" in {number}" if number > 1 else "")
        for name, (number, cpu_s) in list(ours[-1].by_name().items())[:4]
    )
    how = (
        f"user and system time of all processes of `stillhouse run` of the shipped digits with one epoch for "
        f"teacher and students, its budget as shipped, means of {ROUNDS} runs in turns ({our_s:.1f} s; "
        f"{largest}; {ours[-1].wall_s:.0f} s by the clock), over those of commit {BASE[:7]} "
        f"({their_s:.1f} s; {theirs[-1].wall_s:.0f} s); {surroundings('ray', 'torch', 'mlflow')}"
    )
    return Figure(our_s / their_s, "x", how, SHARE)


def measured(tree: Path, folder: Path) -> CpuTimes:
    """The run of one epoch, by the code of a tree, in an empty folder."""
    folder.mkdir()
    text = (ROOT / "orchestrator/experiments/digits.yaml").read_text(encoding="utf-8")
    (folder / "digits.yaml").write_text(re.sub(r"\bepochs: \d+", "epochs: 1", text), encoding="utf-8")
    return cpu_times(
        [
            sys.executable,
            "-m",
            "orchestrator",
            "run",
            str(folder / "digits.yaml"),
            "--out",
            str(folder / "out"),
        ],
        folder=folder,
        environment={**os.environ, "PYTHONPATH": str(tree)},
    )


@contextmanager
def checked_out(commit: str, folder: Path) -> Iterator[Path]:
    """A commit of this repository in a folder of its own, for the length of a block.

    Raises:
        LookupError: there is no repository here, or it has not the commit.
    """
    if _git("cat-file", "-e", f"{commit}^{{commit}}").returncode != 0:
        raise LookupError(
            f"{ROOT} is no clone with commit {commit[:7]}, which is measured beside this version; "
            "`git fetch --unshallow` brings it into a shallow one"
        )
    made = _git("worktree", "add", "--detach", "--force", str(folder), commit)
    if made.returncode != 0:
        raise LookupError(f"commit {commit[:7]} cannot be checked out: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        _git("worktree", "remove", "--force", str(folder))


def _git(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)


def main(commit: str | None = None) -> None:
    """Print a table of the processes of one run."""
    with scratch_folder() as folder:
        if commit is None:
            found = measured(ROOT, folder / "run")
        else:
            with checked_out(commit, folder / "tree") as tree:
                found = measured(tree, folder / "run")
    print(f"| {'process':<36} | number | CPU s |\n|{'-' * 38}|--------|-------|")
    for name, (number, cpu_s) in found.by_name().items():
        print(f"| {name:<36} | {number:>6} | {cpu_s:>5.1f} |")
    print(f"| {'all':<36} | {len(found.processes):>6} | {found.total_s:>5.1f} |")
    print(f"{found.wall_s:.0f} s by the clock")


if __name__ == "__main__":
    main(*sys.argv[1:2])
