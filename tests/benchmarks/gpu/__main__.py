"""`python -m tests.benchmarks.gpu`: what `make gpu` starts; says what this Python lacks, if anything.

It imports nothing but the standard library, so that it can say so.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Final

NEEDED: Final = (
    "torch",
    "pydantic",
    "numpy",
    "pyarrow",
    "safetensors",
    "filelock",
    "PIL",
    "pytest",
    "pytest_timeout",
    "hypothesis",
)


def missing(found: Callable[[str], object] = find_spec) -> list[str]:
    """The modules that are not installed."""
    return [name for name in NEEDED if found(name) is None]


def main(arguments: Sequence[str]) -> int:
    """1 when a module is missing; else the exit status of the tests and benchmarks."""
    lacking = missing()
    if lacking:
        sys.stderr.write(
            f"make gpu needs {', '.join(lacking)}, not installed for {sys.executable}; install it there, or "
            "name another Python: make gpu GPU_PYTHON=python3\n"
        )
        return 1
    command = [sys.executable, "-m", "tests.benchmarks.gpu.tier", *arguments]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
