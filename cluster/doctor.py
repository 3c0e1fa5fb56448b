"""Checks of a machine and of the cluster it is connected to: what is found, and what to do about it."""

from __future__ import annotations

import http.client
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final
from urllib.parse import urlsplit

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.auth import AUTH_RECIPE, is_readable_by_others, token_file, token_source
from cluster.errors import ClusterError
from cluster.resources import capacity
from cluster.session import DASHBOARD_VARIABLE, current_session, is_own
from cluster.storage import free_bytes

PACKAGES: Final = ("ray", "torch", "torchvision", "mlflow", "pyarrow", "numpy", "pandas")
_LOOPBACK: Final = ("127.0.0.1", "::1")
_LEAST_FREE_BYTES: Final = 5 * 1024**3
_TIMEOUT_S: Final = 5.0
_NODE_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True)
class Check:
    """One finding; `next_step` is empty when all is well."""

    name: str
    ok: bool
    detail: str
    next_step: str = ""


def checks(*, output: str = "out") -> list[Check]:
    """Checks this machine and, where the process is connected to a cluster, every node of it.

    The checks read: nothing is created, and no token is shown. `output` is where results go. Takes seconds.
    """
    found = [_versions(), *_authentication(), _cores(), _gpus(), disk(output)]
    if ray.is_initialized():
        found += [_dashboard(), _inventory(), listening(_addresses()), *_nodes()]
    return found


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that all nodes must share; "missing" where one is not there."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def different_versions(here: Mapping[str, str], there: Mapping[str, str]) -> str:
    """What differs on another node, in words; empty when nothing does."""
    return ", ".join(
        f"{name} {there.get(name)} (here {here[name]})" for name in here if there.get(name) != here[name]
    )


def _versions() -> Check:
    found = installed_versions()
    missing = [name for name, number in found.items() if number == "missing"]
    detail = ", ".join(f"{name} {number}" for name, number in found.items())
    return Check("versions", not missing, detail, f"install {', '.join(missing)}" if missing else "")


def _authentication() -> Iterator[Check]:
    mode = os.environ.get("RAY_AUTH_MODE", "")
    source = token_source()
    detail = f"mode {mode or 'left to Ray'}, token {'from ' + source if source else 'none'}"
    if mode == "disabled":
        yield Check(
            "authentication", False, detail, "unset RAY_AUTH_MODE: whoever reaches Ray's ports runs code"
        )
    elif mode == "token" and source is None:
        yield Check("authentication", False, detail, AUTH_RECIPE)
    else:
        yield Check("authentication", True, detail)
    path = token_file()
    if path.is_file() and is_readable_by_others(path):
        yield Check("token file", False, f"{path} can be read by other users", f"chmod 600 {path}")


def _cores() -> Check:
    usable = len(os.sched_getaffinity(0))
    return Check("cores", True, f"{usable} usable of {os.cpu_count()}")


def _gpus() -> Check:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Check("GPUs", True, "none (no nvidia-smi)")
    listed = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False, timeout=30)  # noqa: S603  # no shell
    if listed.returncode:
        said = (listed.stderr or listed.stdout).strip()
        return Check("GPUs", False, f"nvidia-smi fails: {said}", "repair the driver, or train on CPUs")
    return Check(
        "GPUs", True, "; ".join(line.split(" (UUID")[0] for line in listed.stdout.splitlines()) or "none"
    )


def disk(output: str) -> Check:
    """Whether the folder of results has room for a usual run."""
    try:
        free = free_bytes(output)
    except (ClusterError, OSError) as error:
        return Check("disk", False, str(error), "choose another output folder")
    if free is None:
        return Check("disk", True, f"{output} is object storage")
    detail = f"{free / 1024**3:.1f} GiB free for {output}"
    enough = free >= _LEAST_FREE_BYTES
    step = (
        ""
        if enough
        else f"free some: below {_LEAST_FREE_BYTES / 1024**3:.0f} GiB a teacher cache may not fit"
    )
    return Check("disk", enough, detail, step)


def _dashboard() -> Check:
    address = current_session().dashboard_url
    step = "start Ray with its dashboard: it takes jobs, and shows what runs"
    if not address and is_own():
        detail = f"none, which a cluster of our own does without; {DASHBOARD_VARIABLE}=1 starts one"
        return Check("dashboard", True, detail)
    if not address:
        return Check("dashboard", False, "off", step)
    # Any answer counts as reachable, also one that asks for a token.
    parts = urlsplit(address)
    secure = parts.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", parts.path.rstrip("/") + "/api/version")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return Check("dashboard", False, f"{address} does not answer: {error}", step)
    finally:
        connection.close()
    return Check("dashboard", True, f"{address} answers (HTTP {status})")


def _inventory() -> Check:
    held = capacity()
    gpus = f", {held.gpus:g} GPUs ({', '.join(held.gpu_types) or 'type unknown'})" if held.gpus else ""
    return Check("cluster", True, f"{held.nodes} nodes, {held.cpus:g} CPUs{gpus}")


def _addresses() -> list[str]:
    return [node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def listening(addresses: Sequence[str]) -> Check:
    """From where the servers of a cluster's nodes can be reached, by the addresses that the nodes go by."""
    if all(address in _LOOPBACK for address in addresses):
        return Check("ports", True, "Ray listens on the loopback interface only")
    others = ", ".join(address for address in addresses if address not in _LOOPBACK)
    detail = (
        f"Ray listens on all interfaces of {others}: a firewall has to let the cluster's nodes alone through"
    )
    return Check("ports", True, detail)


def _nodes() -> Iterator[Check]:
    """One small task on each node tells its versions."""
    here = installed_versions()
    task = ray.remote(installed_versions)
    waiting: dict[Any, str] = {}
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        if node["Alive"]:
            place = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
            reference = task.options(num_cpus=0, scheduling_strategy=place, max_retries=0).remote()
            waiting[reference] = f"node {node['NodeManagerHostname']}"
    done, late = ray.wait(list(waiting), num_returns=len(waiting), timeout=_NODE_TIMEOUT_S)
    for reference in late:
        ray.cancel(reference, force=True)
        step = "look at `ray status` and at the logs of that node"
        yield Check(waiting[reference], False, f"no answer within {_NODE_TIMEOUT_S:.0f} s", step)
    for reference in done:
        yield _compared(waiting[reference], here, reference)


def _compared(name: str, here: Mapping[str, str], reference: Any) -> Check:
    try:
        differs = different_versions(here, ray.get(reference))
    except ray.exceptions.RayError as error:
        return Check(
            name,
            False,
            f"the check fails there: {error}",
            "install the same packages on all nodes, or submit as a job",
        )
    if differs:
        return Check(name, False, differs, "install the same versions, or the same image, on all nodes")
    return Check(name, True, "same versions as here")
