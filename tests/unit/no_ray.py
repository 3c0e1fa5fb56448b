"""An environment for a process of Python in which some packages are as good as not installed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

ABSENT: Final = ("ray", "mlflow", "pandas", "optuna", "typer", "rich", "matplotlib", "yaml")
_REFUSES: Final = """
import sys


class Refuses:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}} (it is kept away)", name=name)
        return None


sys.meta_path.insert(0, Refuses())
"""


def environment_without(folder: Path, absent: tuple[str, ...] = ABSENT) -> dict[str, str]:
    """Environment variables for the process and all that it starts; a module is written to the folder."""
    (folder / "sitecustomize.py").write_text(_REFUSES.format(absent=absent), encoding="utf-8")
    return {**os.environ, "PYTHONPATH": str(folder)}
