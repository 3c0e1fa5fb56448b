"""A real head node on this machine for tests: its own folder, ports and token, and none of anyone else's."""

from __future__ import annotations

import http.client
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

_ATTEMPTS = 4
_START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 20.0
_PORTS = ("port", "object-manager-port", "node-manager-port", "dashboard-port", "dashboard-agent-listen-port")


class NotUp(Exception):
    """Ray did not start; says what it said."""


@dataclass(frozen=True)
class HeadNode:
    """A cluster of one node; `environment` is what its clients need, the token included."""

    address: str
    dashboard_url: str
    token: str
    environment: Mapping[str, str]

    def run(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        environment: Mapping[str, str] | None = None,
        timeout_s: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a client of the cluster in a process of its own and gives what it said."""
        return subprocess.run(
            list(command),
            cwd=cwd,
            env={**self.environment, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )


@contextmanager
def start_head_node(*, cpus: int = 2) -> Iterator[HeadNode]:
    """Starts `ray start --head` with token authentication; at the end kills the processes that it started.

    Ray gives up on itself where a machine is busy, so there are several tries.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        with ExitStack() as stack:
            try:
                head = _start(stack, cpus)
            except NotUp:
                if attempt == _ATTEMPTS:
                    raise
                continue
            yield head
            return


def _start(stack: ExitStack, cpus: int) -> HeadNode:
    # Directly below the system's folder for temporary files: the sockets in it allow no long path.
    # A worker of Ray's that is still ending may write a log there while it is removed.
    scratch = tempfile.TemporaryDirectory(prefix="ray-head-", ignore_cleanup_errors=True)
    folder = Path(stack.enter_context(scratch))
    ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
    url = f"http://127.0.0.1:{ports['dashboard-port']}"
    token = secrets.token_hex(32)
    environment = _environment(folder, token)
    log = stack.enter_context((folder / "head.log").open("wb"))
    options = [
        *(f"--{name}={port}" for name, port in ports.items()),
        f"--num-cpus={cpus}",
        f"--temp-dir={folder}",
        "--dashboard-host=127.0.0.1",
        "--include-dashboard=true",
        "--object-store-memory=200000000",
        "--disable-usage-stats",
    ]
    process = subprocess.Popen(
        [*ray_command(), "start", "--head", "--block", *options],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    stack.callback(_stop, process, folder)
    _wait_until_up(process, url, token, folder / "head.log")
    clients = {**environment, "RAY_API_SERVER_ADDRESS": url}
    return HeadNode(f"127.0.0.1:{ports['port']}", url, token, clients)


def ray_command() -> list[str]:
    """The command line of the Ray that is installed beside this Python."""
    return [sys.executable, "-m", "ray.scripts.scripts"]


def _environment(folder: Path, token: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    home = folder / "home"
    home.mkdir()
    return {
        **inherited,
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        # Binds to the loopback interface.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


def _wait_until_up(process: subprocess.Popen[bytes], url: str, token: str, log: Path) -> None:
    parts = urlsplit(url)
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
        try:
            # Answers only when the node has joined, unlike the version.
            connection.request("GET", "/api/jobs/", headers={"Authorization": f"Bearer {token}"})
            if connection.getresponse().status == 200 and "Ray runtime started" in log.read_text():
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(1)
    raise NotUp(f"the head node did not start; it said:\n{log.read_text()}")


def _stop(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Ends Ray's processes: those below ours, and those that left it but work in our folder."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while (left := _processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.5)
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _processes_of(folder: Path) -> list[int]:
    """Processes whose command line names the folder of this head node, which no other cluster has."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(folder) in command:
            found.append(int(entry.name))
    return found


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
