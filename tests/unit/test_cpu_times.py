"""CPU seconds of a command are those of all that comes of it, orphans included."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.benchmarks.fixed_cost.cpu_times import Seen, cpu_times
from tests.benchmarks.fixed_cost.run_cost import checked_out

BURN_S = 0.4
BURNS = f"""
import os, sys, time
while time.process_time() < {BURN_S}:
    pass
"""
# The child outlives its parent, which waits for nobody.
FAMILY = f"""
import os, subprocess, sys
subprocess.Popen([sys.executable, "-c", {BURNS!r}, "orphan.py"])
{BURNS}
"""


def test_children_and_orphans_are_counted(tmp_path: Path) -> None:
    found = cpu_times([sys.executable, "-c", FAMILY], folder=tmp_path, environment=dict(os.environ))
    assert found.total_s >= 2 * BURN_S
    assert found.by_name()["orphan.py"][0] == 1
    assert sum(one.cpu_s for one in found.processes) <= found.total_s + 0.01


def test_a_command_that_fails_is_told_with_its_last_lines(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such data')"]
    with pytest.raises(RuntimeError, match=r"(?s)ended with 1:.*no such data"):
        cpu_times(command, folder=tmp_path, environment=dict(os.environ))


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("ray::RayTrainWorker.execute", "ray::RayTrainWorker"),
        ("ray::MapWorker(MapBatches(TeacherWorker))", "ray::MapWorker"),
        ("/x/python -m orchestrator run a.yaml", "driver"),
        ("/x/python -u /y/log_monitor.py --session-dir=/z", "log_monitor.py"),
        ("/x/raylet --raylet_socket_name=y", "raylet"),
        ("", "?"),
    ],
)
def test_processes_are_named_as_ray_names_them(line: str, name: str) -> None:
    assert Seen(line).short_name == name


def test_a_commit_that_the_clone_lacks_is_said(tmp_path: Path) -> None:
    with (
        pytest.raises(LookupError, match="no clone with commit 0000000"),
        checked_out("0" * 40, tmp_path / "t"),
    ):
        pytest.fail("it is not there")
