"""An embedded cluster in a process of its own: what it opens, what workers see, what it leaves behind."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.ray]

REPOSITORY = Path(__file__).parents[2]
SCRIPT = """
import json, os, sys
import ray, psutil
from cluster.doctor import checks
from cluster.resources import capacity
from cluster.session import connect

@ray.remote(num_cpus=0.1)
def on_a_worker():
    import helper_of_the_user
    return helper_of_the_user.ANSWER, os.environ["RAY_CHDIR_TO_TRIAL_DIR"]

before = dict(os.environ)
me = psutil.Process()
with connect("local", cpus=2) as session:
    helpers = [" ".join(child.cmdline()) for child in me.children(recursive=True)]
    ours = {child.pid for child in me.children(recursive=True)}
    listening = {c.laddr.ip for c in psutil.net_connections() if c.status == "LISTEN" and c.pid in ours}
    with connect() as inner:
        nested = inner.address == session.address
    facts = {
        "embedded": session.embedded,
        "dashboard": session.dashboard_url,
        "helpers": [name for name in ("dashboard.py", "monitor.py") if name in str(helpers)],
        "listening": sorted(listening),
        "worker": ray.get(on_a_worker.remote()),
        "cpus": capacity().cpus,
        "nested": nested and ray.is_initialized(),
        "logs_then": session.logs.is_dir(),
        "checks": {check.name.split()[0]: check.ok for check in checks()},
    }
changed = {name for name in {*before, *os.environ} if before.get(name) != os.environ.get(name)}
ours = ("RAY_TRAIN", "RAY_TMPDIR", "RAY_API", "RAY_raylet", "RAY_ENABLE", "TUNE")
facts["changed"] = sorted(name for name in changed if name.startswith(ours))
facts["left"] = [child.name() for child in me.children(recursive=True)]
facts["logs_now"] = session.logs.exists()
print(json.dumps(facts))
"""


WITH_DASHBOARD = """
import json
import ray
from cluster.doctor import checks
from cluster.session import connect

@ray.remote(num_cpus=0.1)
def on_a_worker():
    from ray.util.state import list_actors
    return list_actors()

with connect("local", cpus=1) as session:
    found = [check for check in checks() if check.name == "dashboard"]
    print(json.dumps([ray.get(on_a_worker.remote()), found[0].ok, session.dashboard_url in found[0].detail]))
"""
WITHOUT_DASHBOARD = """
import json, logging, socket, sys
import ray, psutil
from cluster import starting
from cluster.session import connect

logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
taken = socket.socket()
taken.bind(("127.0.0.1", 0))
taken.listen()
starting.free_port = lambda: taken.getsockname()[1]
before = ray._private.services.get_node, ray._private.ray_constants.RAY_DASHBOARD_STARTUP_TIMEOUT_S
me = psutil.Process()
with connect("local", cpus=1, dashboard=True) as session:
    answer = ray.get(ray.remote(num_cpus=0.1)(lambda: 42).remote())
after = ray._private.services.get_node, ray._private.ray_constants.RAY_DASHBOARD_STARTUP_TIMEOUT_S
left = [child.name() for child in me.children(recursive=True)]
print(json.dumps([answer, session.dashboard_url, before == after, left]))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def facts(home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("project")
    (folder / "helper_of_the_user.py").write_text("ANSWER = 42\n")
    ended = ran(SCRIPT, folder, home)
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def ran(script: str, folder: Path, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**clean, "HOME": str(home), "PYTHONPATH": str(REPOSITORY), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
        stdin=subprocess.DEVNULL,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended


def test_a_dashboard_that_does_not_come_up_is_no_condition(home: Path, tmp_path: Path) -> None:
    ended = ran(WITHOUT_DASHBOARD, tmp_path, home)
    assert json.loads(ended.stdout.splitlines()[-1]) == [42, None, True, []]
    said = [line for line in ended.stderr.splitlines() if "dashboard" in line.lower()]
    assert len(said) == 1, ended.stderr
    assert "Ray's dashboard did not start; the run goes on without it" in said[0]


def test_it_listens_on_the_loopback_interface_only(facts: dict[str, Any]) -> None:
    assert facts["embedded"]
    assert facts["listening"]
    assert all(address.endswith("127.0.0.1") or address == "::1" for address in facts["listening"])


def test_workers_import_modules_of_the_working_folder(facts: dict[str, Any]) -> None:
    assert facts["worker"] == [42, "0"]
    assert facts["cpus"] == 2


def test_it_starts_no_dashboard_and_nothing_else_that_one_machine_does_without(facts: dict[str, Any]) -> None:
    assert facts["dashboard"] is None
    assert facts["helpers"] == []


def test_a_dashboard_that_is_asked_for_is_there_for_workers_and_doctor(home: Path, tmp_path: Path) -> None:
    ended = ran(WITH_DASHBOARD, tmp_path, home, STILLHOUSE_DASHBOARD="1")
    assert json.loads(ended.stdout.splitlines()[-1]) == [[], True, True]


def test_the_doctor_finds_its_node_well_and_misses_no_dashboard(facts: dict[str, Any]) -> None:
    assert facts["checks"]["dashboard"]
    assert facts["checks"]["node"]
    assert facts["checks"]["cluster"]


def test_a_session_within_a_session_is_the_same_one(facts: dict[str, Any]) -> None:
    assert facts["nested"]


def test_it_leaves_no_process_no_variable_and_no_logs(facts: dict[str, Any]) -> None:
    assert facts["left"] == []
    assert facts["changed"] == []
    assert facts["logs_then"]
    assert not facts["logs_now"]


@pytest.mark.usefixtures("facts")
def test_the_new_token_can_be_read_by_its_owner_alone(home: Path) -> None:
    token = home / ".ray" / "auth_token"
    assert stat.S_IMODE(token.stat().st_mode) == stat.S_IRUSR | stat.S_IWUSR
