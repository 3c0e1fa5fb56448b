"""Our four top-level packages, found first: a user's own file may have the name of one of them."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Final

OWN_PACKAGES: Final = ("orchestrator", "search_spaces", "cluster", "trainables")
"""As in `trainables.user_code`, which can only be imported when these are ours."""
SETUP_HOOK: Final = "orchestrator.own_packages.settle"
"""What each Ray worker calls when it starts, before the user's folder is on its import path."""


def settle() -> None:
    """Make ours the modules of these names, wherever the import path would find others first.

    `python -m` and Ray put the folder that a command was started from before all else: a `cluster.py` there
    would stand in the place of our package. What was imported once is not looked for again.
    """
    root = Path(__file__).parents[1]
    for name in OWN_PACKAGES:
        if not _is_in(root, sys.modules.get(name)):
            sys.modules[name] = _imported(name, root)


def _is_in(root: Path, module: ModuleType | None) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).is_relative_to(root)


def _imported(name: str, root: Path) -> ModuleType:
    spec = PathFinder.find_spec(name, [str(root)])
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"{root} has no package {name}; install Stillhouse again", name=name)
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
