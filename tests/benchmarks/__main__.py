"""`python -m tests.benchmarks [NAME]`: measures, prints a line a figure, writes `out/bench.json`.

Benchmarks that need a GPU are left out here: `make gpu` runs them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.benchmarks.figures import Figure, read_figures, write_figures
from tests.benchmarks.registry import BENCHMARKS, measure


def run(only: str | None, path: Path, *, measure: Callable[[str], Figure] = measure) -> int:
    """Measure one benchmark or all, writing each figure as it comes; 1 when a bound is broken, else 0.

    With one, the other entries of the file stay; with all, the file starts empty, so that no figure of an
    earlier run stands for a benchmark that fails now.
    """
    entries = read_figures(path) if only else {}
    broken = False
    for name in [only] if only else BENCHMARKS:
        print(f"measuring {name}", file=sys.stderr, flush=True)
        figure = measure(name)
        print(figure.line(name), flush=True)
        entries[name] = figure.plain()
        write_figures(path, entries)
        broken = broken or not figure.ok
    return int(broken)


def main(arguments: Sequence[str]) -> int:
    """The exit status of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("only", nargs="?", choices=list(BENCHMARKS), help="measure this one alone")
    parser.add_argument("--out", type=Path, default=Path("out/bench.json"), help="file of the figures")
    given = parser.parse_args(arguments)
    return run(given.only, given.out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
