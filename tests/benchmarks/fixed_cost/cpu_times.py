"""CPU seconds of a command and of all processes that come of it, process by process."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

MARK: Final = "STILLHOUSE_MEASURED_RUN"
LOOK_S: Final = 0.1
_PR_SET_CHILD_SUBREAPER: Final = 36
_TICKS: Final = os.sysconf("SC_CLK_TCK")
# A process is often forked before it gets its name, and its command line is that of its parent till then.
_NAMED_AGAIN_FOR_S: Final = 30.0


@dataclass
class Seen:
    """One process, as it was when it was last looked at."""

    name: str
    """Its command line, or what it has put in the place of that."""
    cpu_s: float = 0.0
    began: float = field(default_factory=time.monotonic)

    @property
    def short_name(self) -> str:
        """Ray's class or task, else the program or script."""
        words = self.name.split()
        if self.name.startswith("ray"):
            return re.split(r"[.(]", words[0])[0]
        if "orchestrator" in words:
            return "driver"
        scripts = [word for word in words if word.endswith(".py")]
        if "multiprocessing" in self.name:
            return "multiprocessing's helpers"
        return Path((scripts or words or ["?"])[0]).name


@dataclass(frozen=True)
class CpuTimes:
    """What a command took."""

    total_s: float
    """User and system, of all processes."""
    wall_s: float
    processes: tuple[Seen, ...]
    """The longest first; one that lived for less than a tenth of a second is missing here."""

    def by_name(self) -> dict[str, tuple[int, float]]:
        """How many processes of a name there were, and their seconds; the longest first."""
        found: dict[str, tuple[int, float]] = {}
        for one in self.processes:
            number, cpu_s = found.get(one.short_name, (0, 0.0))
            found[one.short_name] = number + 1, cpu_s + one.cpu_s
        return dict(sorted(found.items(), key=lambda item: -item[1][1]))


def cpu_times(command: Sequence[str], *, folder: Path, environment: Mapping[str, str]) -> CpuTimes:
    """Run a command to its end, and wait for the last process that came of it.

    The kernel adds the times of a process to those of whoever waits for it. Processes whose parent has died
    become children of this one (a subreaper), so nothing that was waited for is missing in the total; what
    was seen in `/proc` says which process it was.

    Raises:
        RuntimeError: the command failed; its last lines are in the text.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    mark, before, began = uuid.uuid4().hex, _waited_for_s(), time.monotonic()
    look = _Look(f"{MARK}={mark}".encode())
    output = folder / "measured.log"
    with output.open("w") as log:
        process = subprocess.Popen(  # the caller's own command
            list(command), cwd=folder, env={**environment, MARK: mark}, stdout=log, stderr=subprocess.STDOUT
        )
        while process.poll() is None:
            look.again()
            time.sleep(LOOK_S)
        wall_s = time.monotonic() - began
    _reap(look)
    if process.returncode != 0:
        tail = "\n".join(output.read_text().splitlines()[-20:])
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{tail}")
    seen = tuple(sorted(look.seen.values(), key=lambda one: -one.cpu_s))
    total = max(_waited_for_s() - before, sum(one.cpu_s for one in seen))
    return CpuTimes(total, wall_s, seen)


class _Look:
    """Looks at the processes that carry a mark in their environment."""

    def __init__(self, mark: bytes) -> None:
        self._mark = mark
        self._others: set[tuple[int, str]] = set()
        self.seen: dict[tuple[int, str], Seen] = {}

    def again(self) -> int:
        """Note what each has used by now; how many there are that live."""
        alive = 0
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                alive += self._at(Path(entry.path))
        return alive

    def _at(self, folder: Path) -> bool:
        try:
            # The name in brackets may hold blanks and brackets itself.
            values = (folder / "stat").read_text().rpartition(")")[2].split()
            key = int(folder.name), values[19]
            if key in self._others:
                return False
            if key not in self.seen:
                if self._mark not in (folder / "environ").read_bytes():
                    self._others.add(key)
                    return False
                self.seen[key] = Seen("")
            one = self.seen[key]
            one.cpu_s = (int(values[11]) + int(values[12])) / _TICKS
            if time.monotonic() - one.began < _NAMED_AGAIN_FOR_S or not one.name:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                one.name = line or one.name
        except (OSError, IndexError):  # it has ended, or belongs to another user
            return False
        return values[0] != "Z"


def _reap(look: _Look) -> None:
    """Wait for processes that outlived the command; they end by themselves, since their cluster is gone."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        look.again()
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            return
        time.sleep(LOOK_S)
    print("processes of the measured run are still there after a minute", file=sys.stderr)


def _waited_for_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
