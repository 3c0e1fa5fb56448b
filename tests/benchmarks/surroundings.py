"""Where a figure was measured: machine, versions, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path


def surroundings(*libraries: str) -> str:
    """The end of a figure's `how`: cores, processor, load, versions of Python and of libraries, commit."""
    versions = ", ".join(f"{name} {version(name)}" for name in libraries)
    load = os.getloadavg()[0]
    return (
        f"on {len(os.sched_getaffinity(0))} cores of {_processor()}, {platform.system()}, load {load:.1f} "
        f"at the end, Python {platform.python_version()}, {versions}, commit {_commit()}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return f"{line.partition(':')[2].strip()} ({platform.machine()})"
    return platform.machine()


def _commit() -> str:
    """The commit that is checked out, and whether tracked files differ from it."""
    here = Path(__file__).parent
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True, check=False
    )
    if head.returncode != 0:
        return "unknown"
    altered = subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=here, check=False).returncode != 0
    return head.stdout.strip() + (" with changes" if altered else "")
