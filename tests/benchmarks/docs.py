"""`python -m tests.benchmarks.docs`: the figures of `out/bench.json` as a table in `docs/performance.md`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.figures import read_figures

FIGURES: Final = Path("out/bench.json")
PAGE: Final = Path("docs/performance.md")
BEGIN: Final = "<!-- figures: written by python -m tests.benchmarks.docs -->"
END: Final = "<!-- end of figures -->"


def table(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """A Markdown table of the figures, and below it how each was measured."""
    lines = ["| name | value | bound | kept |", "|---|---|---|---|"]
    for name, entry in entries.items():
        kept = "" if entry["bound"] is None else ("yes" if entry["ok"] else "**no**")
        value = f"{entry['value']:.3g} {entry['unit']}"
        lines.append(f"| `{name}` | {value} | {_bound(entry)} | {kept} |")
    notes = [f"* `{name}`: {entry['how']}." for name, entry in entries.items()]
    return "\n".join([*lines, "", *notes])


def _bound(entry: Mapping[str, Any]) -> str:
    """The file has the limit alone; value and verdict tell on which side the value must lie."""
    if entry["bound"] is None:
        return "none"
    above = entry["value"] >= entry["bound"]
    return f"{'≥' if above == entry['ok'] else '≤'} {entry['bound']:g}"


def with_table(page: str, written: str) -> str:
    """The page with what stands between the two marks replaced.

    Raises:
        ValueError: the page lacks a mark.
    """
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks the marks {BEGIN} and {END}")
    return f"{head}{begin}\n\n{written}\n\n{end}{tail}"


def main() -> int:
    """Write the table; 1 when nothing was measured yet."""
    entries = read_figures(FIGURES)
    if not entries:
        sys.stderr.write(f"{FIGURES} holds no figures; run `make bench` first\n")
        return 1
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), table(entries)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
