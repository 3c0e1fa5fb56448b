"""A session: the connection to a Ray cluster, or an embedded cluster that lives as long as the session."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import shutil
import socket
import stat
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import ray
from ray._private import ray_constants, services
from ray.exceptions import AuthenticationError

from cluster.auth import AUTH_RECIPE, protect_token, require_token, token_file
from cluster.environment import NOTHING_MORE, WorkerSetup, missing_settings, variables
from cluster.errors import ClusterError
from cluster.starting import WAITS, start

logger = logging.getLogger(__name__)

# Ray keeps Unix sockets some 60 characters below its folder, and the system allows 107 in all.
_LONGEST_FOLDER: Final = 40
_FEWEST_AT_ONCE: Final = 4
DASHBOARD_VARIABLE: Final = "STILLHOUSE_DASHBOARD"
"""Set to 1, it has an embedded cluster start Ray's dashboard."""
_CONNECT_TIMEOUT_S: Final = 10.0
# Ray's job supervisor hands the job's runtime environment to the driver in this variable.
_JOB_CONFIG: Final = "RAY_JOB_CONFIG_JSON_ENV_VAR"


@dataclass(frozen=True)
class Session:
    """A connection that is open: where the cluster is, and whether it ends with the session."""

    address: str
    dashboard_url: str | None
    namespace: str
    embedded: bool
    logs: Path | None = None


@contextmanager
def connect(
    address: str | None = None,
    *,
    cpus: int | None = None,
    gpus: int | None = None,
    namespace: str | None = None,
    workers: WorkerSetup = NOTHING_MORE,
    dashboard: bool = False,
) -> Iterator[Session]:
    """Connects to a cluster, or starts an embedded one, for the length of a `with` block.

    An existing cluster is used when an address (`host:port`, or "auto" for the one on this machine) is
    given, when RAY_ADDRESS is set, and inside a Ray job. Everything else, and the address "local", starts a
    cluster of our own on this machine: it listens on the loopback interface only, keeps Ray's token
    authentication on, and ends with the block. `cpus` and `gpus` are for it alone, and so is `dashboard`:
    without it, and without STILLHOUSE_DASHBOARD=1 in the environment, none is started. Its logs go with it,
    except when the block fails. A process that is connected already keeps its connection, also after the
    block.

    Workers get the driver's import path, its working folder included, and what `workers` says; a submitted
    job's working folder is unpacked for them by Ray. Side effects: Ray's settings in `os.environ` for the
    length of the block; Ray takes over SIGTERM, so handlers of our own belong inside the block.

    Raises:
        ClusterError: no cluster answers at the address, it refuses the token, or Ray does not start.
    """
    target = cluster_address(address, os.environ)
    if target is not None and (cpus is not None or gpus is not None):
        raise ClusterError(f"the cluster at {target} has its own CPUs and GPUs; leave their numbers out")
    if ray.is_initialized():
        yield current_session()
        return
    options = {
        "namespace": namespace or f"session-{uuid.uuid4().hex[:8]}",
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
    with variables(missing_settings(os.environ)):
        if target is not None:
            with _attached(target, options, workers) as session:
                yield session
        else:
            hook = (
                {}
                if workers.hook is None
                else {ray_constants.WORKER_PROCESS_SETUP_HOOK_ENV_VAR: workers.hook}
            )
            # Ray need not prepare an environment for processes of our own: they have that of this one.
            with (
                variables({**hook, **workers.variables}),
                _embedded(
                    {**options, "num_cpus": cpus, "num_gpus": gpus},
                    dashboard=dashboard or os.environ.get(DASHBOARD_VARIABLE) == "1",
                ) as session,
            ):
                yield session


def cluster_address(address: str | None, environment: Mapping[str, str]) -> str | None:
    """The address of the existing cluster to use, or None for an embedded one.

    Raises:
        ClusterError: the address is one that takes jobs, or a Ray Client address.
    """
    wanted = address or environment.get("RAY_ADDRESS")
    if not wanted:
        return "auto" if _JOB_CONFIG in environment else None
    if wanted == "local":
        return None
    if "://" in wanted:
        source = "the address" if address else "RAY_ADDRESS"
        raise ClusterError(
            f"{source} is {wanted}, which is no host:port; from outside the cluster submit the run as a job, "
            'on a machine of the cluster give host:port or "auto", or "local" for a cluster of our own'
        )
    return wanted


@contextmanager
def _attached(address: str, options: Mapping[str, Any], workers: WorkerSetup) -> Iterator[Session]:
    try:
        if address == "auto":
            address = _resolve_auto(options)
        _check_answers(address)
        require_token(address)
        environment: dict[str, Any] = {"env_vars": {**_worker_variables(address), **workers.variables}}
        if workers.hook is not None:
            environment["worker_process_setup_hook"] = workers.hook
        ray.init(address=address, runtime_env=environment, **options)
    except AuthenticationError as error:
        raise ClusterError(f"the cluster at {address} refuses this process; {AUTH_RECIPE}") from error
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ClusterError(
            f"no Ray cluster answers at {address}: {error}; look at `ray status` there, or unset RAY_ADDRESS "
            "to start a cluster of our own"
        ) from error
    try:
        yield current_session()
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Fails at once where nothing listens: Ray itself would try for many minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("write it as host:port")
    socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT_S).close()


def _resolve_auto(options: Mapping[str, Any]) -> str:
    """The host:port behind "auto": it is known only once connected, and workers must be told it."""
    found = services.canonicalize_bootstrap_address("auto")
    if found is not None:
        require_token(found)
    ray.init(address="auto", **options)
    try:
        return str(ray.get_runtime_context().gcs_address)
    finally:
        ray.shutdown()


def _worker_variables(address: str) -> dict[str, str]:
    """RAY_ADDRESS for the workers: Ray Train's cleaner gives up where a machine has two clusters."""
    job = os.environ.get(_JOB_CONFIG, "")
    # Ray refuses a variable that the job sets as well.
    return {} if '"RAY_ADDRESS"' in job else {"RAY_ADDRESS": address}


@contextmanager
def _embedded(options: Mapping[str, Any], *, dashboard: bool) -> Iterator[Session]:
    token_is_new = not token_file().exists()
    folder = os.environ.get("RAY_TMPDIR") or str(_ray_folder())
    waits = {name: value for name, value in WAITS.items() if name not in os.environ}
    settings = {"RAY_TMPDIR": folder, "RAY_API_SERVER_ADDRESS": "", **_room_for_workers(), **waits}
    with variables(settings), _loopback_only():
        try:
            start(options, dashboard=dashboard)
        finally:
            if token_is_new:
                protect_token()
        session = current_session(embedded=True)
        failed = True
        try:
            yield session
            failed = False
        finally:
            _end_with_processes()
            if not failed and session.logs is not None:
                shutil.rmtree(session.logs.parent, ignore_errors=True)


def _end_with_processes() -> None:
    """Ends Ray, and waits for its processes: they would write into folders that are removed."""
    if "wait_for_processes" in inspect.signature(ray.shutdown).parameters:
        ray.shutdown(wait_for_processes=True)
        return
    node: Any = ray._private.worker._global_node  # Ray 2.52 can wait for them, but its shutdown cannot say so
    if node is not None:
        node.kill_all_processes = functools.partial(node.kill_all_processes, wait=True)
    ray.shutdown()


def _room_for_workers() -> dict[str, str]:
    """More processes at once than a small machine has cores: Ray warns about the few that a run needs."""
    at_once = max(_FEWEST_AT_ONCE, len(os.sched_getaffinity(0)))
    return {"RAY_worker_maximum_startup_concurrency": str(at_once)}


def is_own() -> bool:
    """Whether the cluster of this process's connection was started by it."""
    node: Any = ray._private.worker._global_node
    return node is not None and bool(node.head)


def current_session(*, embedded: bool = False) -> Session:
    """The connection that this process has; it must have one."""
    runtime = ray.get_runtime_context()
    address = str(runtime.gcs_address)
    context: Any = ray.init(address=address, ignore_reinit_error=True, configure_logging=False)
    session_folder = context.address_info.get("session_dir")
    return Session(
        address=address,
        dashboard_url=f"http://{context.dashboard_url}" if context.dashboard_url else None,
        namespace=runtime.namespace,
        embedded=embedded,
        logs=Path(session_folder) / "logs" if session_folder else None,
    )


@contextmanager
def _loopback_only() -> Iterator[None]:
    """Makes Ray bind to the loopback interface, as it does by itself on macOS; elsewhere it binds to all.

    Ray reads the variable when it is imported, in its child processes; in this process that has happened.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    with variables({ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}):
        ray_constants.ENABLE_RAY_CLUSTER = False
        try:
            yield
        finally:
            ray_constants.ENABLE_RAY_CLUSTER = before


def _ray_folder() -> Path:
    """A folder of this user alone: Ray's default, /tmp/ray, belongs to whoever came first."""
    base = tempfile.gettempdir()
    name = f"ray-{os.getuid()}"
    if len(base) + len(name) >= _LONGEST_FOLDER:
        base = "/tmp"  # noqa: S108  # made with rights for its owner only, and checked below
    folder = Path(base) / name
    folder.mkdir(mode=stat.S_IRWXU, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise ClusterError(f"{folder} belongs to another user; set RAY_TMPDIR to a short path of your own")
    return folder
