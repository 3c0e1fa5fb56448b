"""No module of ours imports itself by way of others, imports for type checking included."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

grimp = pytest.importorskip(
    "grimp", reason="comes with import-linter, in the development environment; circles depend on no version"
)
PACKAGES = ("orchestrator", "trainables", "search_spaces", "cluster")


def import_circle(*packages: str) -> list[str]:
    """The modules of one circle of imports, first and last the same; empty where there is none."""
    graph = grimp.build_graph(*packages, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_imports_form_a_circle() -> None:
    assert import_circle(*PACKAGES) == []


@pytest.mark.parametrize(
    "source",
    [
        "from madeup.first import One",
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from madeup.first import One\n",
        "def use() -> None:\n    from madeup.first import One\n",
    ],
    ids=["plain", "type checking", "in a function"],
)
def test_a_circle_would_be_found(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "madeup"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "first.py").write_text("import madeup.second\n\n\nclass One: ...\n")
    (package / "second.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    circle = import_circle("madeup")
    assert circle[0] == circle[-1]
    assert set(circle) == {"madeup.first", "madeup.second"}
