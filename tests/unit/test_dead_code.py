"""What is defined in the four packages is used there: what only a test uses is dead."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import trainables

ROOT = Path(trainables.__file__).parents[1]
PACKAGES = ("orchestrator", "trainables", "search_spaces", "cluster")

CALLED_FROM_OUTSIDE = {
    # by torch.fx
    "is_leaf_module",
    # by Ray Tune and Ray Train
    "on_trial_start",
    "on_trial_result",
    "on_checkpoint",
    "on_trial_complete",
    "on_trial_error",
    "on_trial_recover",
    "on_step_end",
    "after_exception",
    "setup",
    "step",
    "reset_config",
    "save_checkpoint",
    "load_checkpoint",
    # by Ray Tune's loop, of what stands in the place of its manager of actors
    "add_actor",
    "get_live_actors_resources",
    "is_actor_failed",
    "is_actor_started",
    "remove_actor",
    "schedule_actor_task",
    "set_on_error",
    "set_on_start",
    "set_on_stop",
    # by ONNX Runtime, when it calibrates
    "get_next",
    # by PyTorch, when a module is printed
    "extra_repr",
    # by whoever distils large maps, as segmentation has them: TaT's formulas for these, with their checks
    "patch_group_loss",
    "anchor_loss",
    # by PyYAML
    "compose_node",
}


def unused_in(folders: list[Path]) -> list[str]:
    """Functions, methods, classes and aliases of modules in these folders that nothing in them uses.

    A name counts as used where it is read, imported or written as a whole string, as `module:function` is.
    What has a decorator is used by whoever made the decorator.
    """
    defined: dict[str, str] = {}
    used: set[str] = set()
    for path in (path for folder in folders for path in sorted(folder.rglob("*.py"))):
        tree = ast.parse(path.read_text())
        defined.update({name: f"{path.name}: {name}" for name in _defined(tree)})
        used.update(name for node in ast.walk(tree) for name in _used(node))
    return sorted(where for name, where in defined.items() if name not in used | CALLED_FROM_OUTSIDE)


def _defined(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if not node.decorator_list and not node.name.startswith("__"):
                yield node.name
        elif isinstance(node, ast.Assign) and node in tree.body:
            for target in node.targets:
                if isinstance(target, ast.Name) and not target.id.startswith("__"):
                    yield target.id


def _used(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield node.id
    elif isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.ImportFrom):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value.rpartition(":")[2]


def test_nothing_is_defined_that_nobody_uses() -> None:
    assert unused_in([ROOT / package for package in PACKAGES]) == []


def test_what_nobody_uses_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(
        "Alias = int\n\n\ndef used() -> int:\n    return 1\n\n\n"
        "class Dead:\n    def neither(self) -> int:\n        return used()\n"
    )
    assert unused_in([tmp_path]) == ["module.py: Alias", "module.py: Dead", "module.py: neither"]
