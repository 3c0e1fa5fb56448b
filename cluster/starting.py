"""Starts an embedded cluster on a machine that may be busy: it is waited for while Ray's processes live."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import ray
from ray._private import ray_constants, services
from ray._private.node import Node

from cluster.errors import ClusterError

logger = logging.getLogger(__name__)

LOOPBACK: Final = "127.0.0.1"
WAITS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "RAY_agent_register_timeout_ms": "300000",
        "RAY_gcs_server_port_wait_time_s": "120",
        "RAY_raylet_start_wait_time_s": "300",
    }
)
"""How long Ray's own processes wait for each other: imports take long on a busy machine."""
_OBJECT_STORE_BYTES: Final = 1 << 30
# Within a start Ray gives one of its processes 15 s to import itself, a limit that cannot be set; on a busy
# machine that takes several tries.
_START_ATTEMPTS: Final = 4
_START_PAUSE_S: Final = 5.0
_PATIENCE_S: Final = 600
_LOOK_S: Final = 0.2
_DASHBOARD_WAIT: Final = "RAY_DASHBOARD_STARTUP_TIMEOUT_S"


def start(options: Mapping[str, Any], *, dashboard: bool) -> None:
    """Starts Ray, again where it gave up on its own processes.

    A dashboard that is wanted is no condition: it is waited for while its process lives, and where it does
    not come up the cluster does without.

    Raises:
        ClusterError: Ray does not start.
    """
    for attempt in range(1, _START_ATTEMPTS + 1):
        port = free_port()
        # For Ray Train's cleaner: with this it need not guess which cluster of the machine is its own.
        os.environ["RAY_API_SERVER_ADDRESS"] = f"http://{LOOPBACK}:{port}"
        try:
            with _patience(), _helpers(dashboard=dashboard):
                context: Any = ray.init(
                    address="local",
                    include_dashboard=None if dashboard else False,
                    dashboard_host=LOOPBACK,
                    dashboard_port=port,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    **options,
                )
        except Exception as error:
            ray.shutdown()
            if attempt == _START_ATTEMPTS or "timed out" not in str(error).lower():
                where = os.environ["RAY_TMPDIR"]
                raise ClusterError(
                    f"Ray did not start on this machine: {error}; its logs are in {where}"
                ) from error
            logger.warning("Ray did not start in time (%s); trying again", error)
            time.sleep(attempt * _START_PAUSE_S)
        else:
            if dashboard and not context.dashboard_url:
                logger.warning("Ray's dashboard did not start; the run goes on without it")
            return


@contextmanager
def _helpers(*, dashboard: bool) -> Iterator[None]:
    """Has Ray leave out helper processes that one machine does without, each half a second to 2 s of CPU.

    Those are the dashboard's server, the autoscaler, and the one that brings workers' output to drivers,
    which a session does not show. Where a version of Ray starts them by other names, they are started.
    """
    left_out = ["start_monitor", "start_log_monitor", *([] if dashboard else ["start_api_server"])]
    before = {name: getattr(Node, name) for name in left_out if hasattr(Node, name)}
    for name in before:
        setattr(Node, name, _starts_nothing)
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(Node, name, method)


def _starts_nothing(node: Node, **_: Any) -> None:
    """In the place of a method that starts a process."""


def free_port() -> int:
    """A port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


@contextmanager
def _patience() -> Iterator[None]:
    """Has Ray wait for dashboard and raylet while their processes live, not for 60 and 30 s by the clock.

    What Ray prints of a dashboard that does not come up, twenty lines of its log, is left out.
    """
    said, dashboard_s, get_node = (
        logging.getLogger(services.__name__),
        ray_constants.RAY_DASHBOARD_STARTUP_TIMEOUT_S,
        services.get_node,
    )
    was_disabled = said.disabled
    if _DASHBOARD_WAIT not in os.environ:
        ray_constants.RAY_DASHBOARD_STARTUP_TIMEOUT_S = _PATIENCE_S
    services.get_node = while_it_lives(get_node, _raylet_lives)
    said.disabled = True
    try:
        yield
    finally:
        said.disabled = was_disabled
        services.get_node = get_node
        ray_constants.RAY_DASHBOARD_STARTUP_TIMEOUT_S = dashboard_s


def while_it_lives(
    ask: Callable[..., dict[str, Any]], lives: Callable[[], bool], patience_s: float = _PATIENCE_S
) -> Callable[..., dict[str, Any]]:
    """The question, asked again while a RuntimeError answers and the process that it is about lives."""

    def asked(*about: Any, **more: Any) -> dict[str, Any]:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                return ask(*about, **more)
            except RuntimeError:
                if time.monotonic() > deadline or not lives():
                    raise
            time.sleep(_LOOK_S)

    return asked


def _raylet_lives() -> bool:
    """Whether a child of this process is a raylet that runs."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = status.read_text().partition(" (")[2].rpartition(") ")
        except OSError:  # ended meanwhile
            continue
        state, parent = rest.split()[:2]
        if (name, int(parent)) == ("raylet", os.getpid()) and state != "Z":
            return True
    return False
