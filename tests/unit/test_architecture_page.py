"""docs/architecture.md walks along four ways; each stop is where it says, and hands on what it says."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
_STOP = re.compile(
    r"^\d+\. `(?P<file>[\w/]+\.py)`, `(?P<name>[\w.]+)`: (?P<text>.*?)(?: → `(?P<hands_on>\w+)`)?$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Stop:
    """A function or class of a way, and the name by which the next one is reached."""

    file: str
    name: str
    hands_on: str | None

    def __str__(self) -> str:
        return f"{self.file}: {self.name}"

    @property
    def node(self) -> ast.AST:
        found: ast.AST = ast.parse((ROOT / self.file).read_text(encoding="utf-8"))
        for part in self.name.split("."):
            children = [node for node in ast.walk(found) if part in _names(node)]
            assert children, f"{self}: there is no {part}"
            found = children[0]
        return found

    def speaks_of(self, name: str) -> bool:
        if name == self.name.rpartition(".")[2]:
            return True
        return any(
            name in {getattr(node, field, None) for field in ("id", "attr", "arg", "name")}
            for node in ast.walk(self.node)
        )


def _names(node: ast.AST) -> set[str]:
    """What a node defines: a function, a class, or a constant."""
    targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
    return {getattr(node, "name", "")} | {getattr(target, "id", "") for target in targets}


def ways() -> dict[str, list[Stop]]:
    text = PAGE.read_text(encoding="utf-8")
    section = text.partition("## Four ways through the code\n")[2].partition("\n## ")[0]
    found = {}
    for way in section.split("\n### ")[1:]:
        # A stop may take several lines of the page.
        unfolded = re.sub(r"\n   +", " ", way)
        stops = [Stop(m["file"], m["name"], m["hands_on"]) for m in _STOP.finditer(unfolded)]
        assert len(stops) == len(re.findall(r"^\d+\. ", unfolded, re.MULTILINE)), (
            f"an unreadable stop in: {way}"
        )
        found[way.partition("\n")[0]] = stops
    return found


WAYS = ways()


def test_there_are_four_ways_of_some_length() -> None:
    assert len(WAYS) == 4
    assert all(len(stops) >= 5 for stops in WAYS.values())


@pytest.mark.parametrize("way", WAYS)
def test_every_stop_is_there_and_hands_on_to_the_next(way: str) -> None:
    stops = WAYS[way]
    assert stops[-1].hands_on is None, "the last stop hands nothing on"
    for here, there in pairwise(stops):
        assert here.hands_on, f"{here} does not say by which name the next stop is reached"
        assert here.speaks_of(here.hands_on), f"{here} does not speak of {here.hands_on}"
        assert there.speaks_of(here.hands_on), f"{there} is not {here.hands_on}, and does not speak of it"
    assert stops[-1].node
