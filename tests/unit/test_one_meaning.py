"""A word has one meaning: no two modules give the same name to different classes or types."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import trainables

ROOT = Path(trainables.__file__).parents[1]
PACKAGES = ("orchestrator", "trainables", "search_spaces", "cluster")
WORDS = ("Progress", "Cost", "Choice", "Outcome", "Line", "Belonging", "Subject", "Job", "Proposal")


def modules_by_name(folders: list[Path]) -> dict[str, list[str]]:
    """By class or type, the modules below these folders that define one of that name."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in (path for folder in folders for path in sorted(folder.rglob("*.py"))):
        for name in _types(ast.parse(path.read_text())):
            found[name].append(path.stem)
    return found


def _types(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


@pytest.mark.parametrize("word", WORDS)
def test_a_word_names_one_class_or_type(word: str) -> None:
    assert len(modules_by_name([ROOT / package for package in PACKAGES])[word]) <= 1


def test_a_word_with_two_meanings_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("class Progress: ...\n")
    (tmp_path / "other.py").write_text("Progress = int\n")
    assert modules_by_name([tmp_path]) == {"Progress": ["one", "other"]}
