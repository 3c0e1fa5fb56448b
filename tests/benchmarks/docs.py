"""`python -m tests.benchmarks.docs`: measured figures as tables in `docs/performance.md`.

Those of `out/bench.json`, each in place of the one of its name, and those of a GPU, of `out/gpu.json`,
where these files are.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.figures import read_figures
from tests.benchmarks.registry import BENCHMARKS

FIGURES: Final = Path("out/bench.json")
PAGE: Final = Path("docs/performance.md")
BEGIN: Final = "<!-- figures: written by python -m tests.benchmarks.docs -->"
END: Final = "<!-- end of figures -->"
_ROW: Final = re.compile(r"^\| `([^`]+)` \| (.+)$", re.MULTILINE)
_NOTE: Final = re.compile(r"^\* `([^`]+)`: (.+)$", re.MULTILINE)
GPU_FIGURES: Final = Path("out/gpu.json")
GPU_BEGIN: Final = "<!-- GPU figures: written by python -m tests.benchmarks.docs -->"
GPU_END: Final = "<!-- end of GPU figures -->"


def table(entries: Mapping[str, Mapping[str, Any]], before: str = "") -> str:
    """A Markdown table of the figures, and below it how each was measured.

    Rows and notes of the table that was there `before` stay where they are, but those of benchmarks that are
    no more; those measured now take their place or come after them.
    """
    rows, notes = (
        {name: text for name, text in kind.findall(before) if name in BENCHMARKS} for kind in (_ROW, _NOTE)
    )
    for name, entry in entries.items():
        kept = "" if entry["bound"] is None else ("yes" if entry["ok"] else "**no**")
        value = f"{_short(entry['value'])} {entry['unit']}"
        rows[name] = f"{value} | {_bound(entry)} | {kept} |"
        notes[name] = f"{entry['how']}."
    lines = [f"| `{name}` | {row}" for name, row in rows.items()]
    told = [f"* `{name}`: {note}" for name, note in notes.items()]
    return "\n".join(["| name | value | bound | kept |", "|---|---|---|---|", *lines, "", *told])


def gpu_table(report: Mapping[str, Any]) -> str:
    """The same for a report of `make gpu`, with the hardware and what was not measured."""
    machine, tests = report["machine"], report["tests"]
    facts = [f"{name} {machine[name]}" for name in ("torch", "cuda", "cudnn", "driver", "python", "commit")]
    lines = [f"On {machine['device']} ({machine['memory_gb']} GB), {', '.join(facts)}."]
    if tests:
        counts = ", ".join(f"{tests[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped"))
        lines.append(f"Tests marked `gpu`: {counts}.")
    if missing := [*report["failed"], *report["left_out"]]:
        lines.append(f"Not measured: {', '.join(f'`{name}`' for name in missing)}.")
    return "\n".join([*lines, "", table(report["figures"])])


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _bound(entry: Mapping[str, Any]) -> str:
    """The file has the limit alone; value and verdict tell on which side the value must lie."""
    if entry["bound"] is None:
        return "none"
    above = entry["value"] >= entry["bound"]
    return f"{'≥' if above == entry['ok'] else '≤'} {entry['bound']:g}"


def with_table(page: str, written: str, *, marks: tuple[str, str] = (BEGIN, END)) -> str:
    """The page with what stands between two marks replaced.

    Raises:
        ValueError: the page lacks a mark.
    """
    head, begin, rest = page.partition(marks[0])
    _, end, tail = rest.partition(marks[1])
    if not begin or not end:
        raise ValueError(f"the page lacks the marks {marks[0]} and {marks[1]}")
    return f"{head}{begin}\n\n{written}\n\n{end}{tail}"


def main() -> int:
    """Write the tables; 1 when nothing was measured yet."""
    entries, report = read_figures(FIGURES), read_figures(GPU_FIGURES)
    if not entries and not report:
        sys.stderr.write(f"there is neither {FIGURES} nor {GPU_FIGURES}; run `make bench` or `make gpu`\n")
        return 1
    page = PAGE.read_text(encoding="utf-8")
    if entries:
        page = with_table(page, table(entries, page.partition(BEGIN)[2].partition(END)[0]))
    if report:
        page = with_table(page, gpu_table(report), marks=(GPU_BEGIN, GPU_END))
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
