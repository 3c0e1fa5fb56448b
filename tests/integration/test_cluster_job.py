"""Jobs on a real cluster with token authentication, submitted by us and by Ray's own command line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.auth import AUTH_RECIPE
from tests.integration.head_node import HeadNode, ray_command

pytestmark = [pytest.mark.ray, pytest.mark.slow]

REPOSITORY = Path(__file__).parents[2]
SUBMIT = """
import json, sys
from orchestrator.own_packages import settle
settle()
from cluster.errors import ClusterError
from cluster.submit import submit_job
options = json.loads(sys.argv[1])
try:
    job = submit_job(**options)
except ClusterError as error:
    print("REFUSED", error)
    sys.exit(error.exit_code)
print("ENDED", job.status, job.exit_code)
"""
WORK = """
import sys, ray
from cluster.session import connect
import helper_of_the_user
@ray.remote(num_cpus=0.1)
def on_a_worker():
    import os, helper_of_the_user
    from ray.util.state import list_actors
    return helper_of_the_user.ANSWER, len(list_actors()) >= 0, "RAY_ADDRESS" in os.environ
with connect() as session:
    print("embedded", session.embedded)
    print("worker", ray.get(on_a_worker.remote()))
    from cluster.doctor import checks
    for check in checks():
        if check.name.startswith(("node", "dashboard")):
            print(check.name.split()[0], check.ok, check.detail)
sys.exit(7)
"""

BESIDE_THEIRS = """
from orchestrator.own_packages import settle
settle()
import os, ray
from pathlib import Path
from orchestrator.pipeline.workers import _setup
from cluster.session import connect
from trainables.user_code import look_in
@ray.remote(num_cpus=0.1)
def on_a_worker():
    import cluster.errors, trainables.errors
    from trainables.factories import call_factory
    return call_factory("user_task:make", {}, {})
look_in(Path("experiments"))
with connect(workers=_setup()) as session:
    print("embedded", session.embedded)
    print("worker", ray.get(on_a_worker.remote()))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's folder: our package beside a script and a module that it imports."""
    folder = tmp_path / "project"
    shutil.copytree(REPOSITORY / "cluster", folder / "cluster")
    (folder / "helper_of_the_user.py").write_text("ANSWER = 42\n")
    (folder / "work.py").write_text(WORK)
    return folder


def _submit(
    head: HeadNode, project: Path, *entrypoint: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    options = {"entrypoint": entrypoint, "address": head.dashboard_url}
    ended = head.run(
        [sys.executable, "-c", SUBMIT, json.dumps(options)], cwd=project, environment=environment
    )
    assert head.token not in ended.stdout + ended.stderr
    return ended


def test_a_job_sees_the_sources_and_its_exit_status_comes_back(head_node: HeadNode, project: Path) -> None:
    ended = _submit(head_node, project, "python", "work.py")
    assert "embedded False" in ended.stdout, ended.stdout + ended.stderr
    assert "worker (42, True, True)" in ended.stdout
    assert "dashboard True" in ended.stdout
    assert "node True same versions as here" in ended.stdout
    assert "ENDED FAILED 7" in ended.stdout


def test_ours_come_first_beside_a_users_files_of_their_names_and_his_code_is_found_by_workers(
    head_node: HeadNode, tmp_path: Path
) -> None:
    for name in ("cluster", "search_spaces", "experiments/trainables"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('of the user')\n")
    (tmp_path / "experiments" / "user_task.py").write_text("def make(): return 'made'\n")
    (tmp_path / "work.py").write_text(BESIDE_THEIRS)
    ended = _submit(head_node, tmp_path, sys.executable, "work.py")
    assert "embedded False" in ended.stdout, ended.stdout + ended.stderr
    assert "worker made" in ended.stdout


def test_words_of_the_command_arrive_as_they_are(head_node: HeadNode, project: Path) -> None:
    ended = _submit(
        head_node, project, "python", "-c", "import sys; print(sys.argv[1:])", "a b", "$HOME", "'"
    )
    assert """['a b', '$HOME', "'"]""" in ended.stdout, ended.stderr
    assert "ENDED SUCCEEDED 0" in ended.stdout


def test_rays_command_line_runs_the_same_folder(head_node: HeadNode, project: Path) -> None:
    command = [*ray_command(), "job", "submit", "--working-dir", ".", "--", "python", "-c"]
    ended = head_node.run(
        [*command, "import helper_of_the_user as h; print('answer', h.ANSWER)"], cwd=project
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "answer 42" in ended.stdout
    failed = head_node.run([*command, "raise SystemExit(3)"], cwd=project)
    assert failed.returncode == 1
    assert head_node.token not in ended.stdout + ended.stderr + failed.stdout + failed.stderr


def test_a_wrong_token_is_refused_with_what_to_do(head_node: HeadNode, project: Path) -> None:
    wrong = "0" * 64
    ended = _submit(head_node, project, "true", RAY_AUTH_TOKEN=wrong)
    assert ended.returncode == 1
    assert "REFUSED" in ended.stdout
    assert "refuses this user" in ended.stdout
    assert "ray get-auth-token" in ended.stdout
    assert wrong not in ended.stdout + ended.stderr


def test_no_token_is_refused_with_what_to_do(head_node: HeadNode, project: Path) -> None:
    ended = _submit(head_node, project, "true", RAY_AUTH_TOKEN="", RAY_AUTH_MODE="disabled")
    assert ended.returncode == 1
    assert "export RAY_AUTH_MODE=token" in ended.stdout


def test_an_attached_session_leaves_the_cluster_running(head_node: HeadNode, project: Path) -> None:
    script = (
        "from cluster.session import connect\n"
        f"with connect({head_node.address!r}) as session: print('embedded', session.embedded)\n"
    )
    for _ in range(2):
        ended = head_node.run([sys.executable, "-c", script], cwd=project)
        assert "embedded False" in ended.stdout, ended.stdout + ended.stderr


def test_an_attached_session_with_a_wrong_token_is_refused(head_node: HeadNode, project: Path) -> None:
    script = (
        "from cluster.session import connect\nfrom cluster.errors import ClusterError\n"
        f"try:\n with connect({head_node.address!r}): print('connected')\n"
        "except ClusterError as error: print('REFUSED', error)\n"
    )
    ended = head_node.run(
        [sys.executable, "-c", script], cwd=project, environment={"RAY_AUTH_TOKEN": "0" * 64}
    )
    assert "REFUSED" in ended.stdout, ended.stdout + ended.stderr
    assert "connected" not in ended.stdout


def test_the_doctor_says_in_one_line_that_the_token_is_refused(head_node: HeadNode, project: Path) -> None:
    command = [sys.executable, "-m", "orchestrator", "doctor", "--address", head_node.address]
    for token in ("0" * 64, ""):
        changed = {"RAY_AUTH_TOKEN": token, "PYTHONPATH": str(REPOSITORY)}
        ended = head_node.run(command, cwd=project, environment=changed)
        assert ended.returncode == 1
        refused = f"error: the cluster at {head_node.address} refuses this process; {AUTH_RECIPE}\n"
        assert ended.stderr == refused
    allowed = head_node.run(command, cwd=project, environment={"PYTHONPATH": str(REPOSITORY)})
    assert "ok  cluster" in allowed.stdout, allowed.stdout + allowed.stderr
