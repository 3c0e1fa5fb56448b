"""Where a figure was measured: machine, versions, commit."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Final

COMMIT: Final = "STILLHOUSE_COMMIT"
"""Names the commit of a copy of the tree that has no repository."""


def surroundings(*libraries: str, device: str = "") -> str:
    """The end of a figure's `how`: device, processor, load, versions of Python and of libraries, commit.

    `device` is the name of the GPU where it was measured on one.
    """
    versions = ", ".join(f"{name} {version(name)}" for name in libraries)
    load = os.getloadavg()[0]
    beside = f"{device} beside " if device else ""
    return (
        f"on {beside}{len(os.sched_getaffinity(0))} cores of {_processor()}, {platform.system()}, "
        f"load {load:.1f} at the end, Python {platform.python_version()}, {versions}, commit {commit()}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return f"{line.partition(':')[2].strip()} ({platform.machine()})"
    return platform.machine()


def commit() -> str:
    """The commit that is checked out, and whether tracked files differ from it."""
    if given := os.environ.get(COMMIT):
        return given
    if shutil.which("git") is None:
        return "unknown"
    here = Path(__file__).parent
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True, check=False
    )
    if head.returncode != 0:
        return "unknown"
    altered = subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=here, check=False).returncode != 0
    return head.stdout.strip() + (" with changes" if altered else "")
