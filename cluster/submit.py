"""Submits a command as a Ray job, follows its log and gives its exit status."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from cluster.auth import AUTH_RECIPE
from cluster.environment import variables
from cluster.errors import ClusterError
from cluster.package import pack

_POLL_S: Final = 0.5
_RECONNECTS: Final = 20
_RECONNECT_WAIT_S: Final = 3.0
_STOPPED_EXIT_CODE: Final = 130
_SECRETS: Final = ("RAY_AUTH_TOKEN",)


@dataclass(frozen=True)
class JobResult:
    """What became of a job; the exit code is None while it runs."""

    submission_id: str
    status: str
    exit_code: int | None
    message: str


def submit_job(
    entrypoint: Sequence[str],
    *,
    address: str | None = None,
    working_dir: Path | None = None,
    submission_id: str | None = None,
    env: Mapping[str, str] | None = None,
    wait: bool = True,
) -> JobResult:
    """Runs a command on a cluster: sends the sources, starts the job, follows its log on standard output.

    `address` is the cluster's job server, `http://host:8265`; None leaves it to RAY_API_SERVER_ADDRESS,
    RAY_ADDRESS, or the cluster on this machine. `working_dir` (default: the current folder) is packed as
    `cluster.package.sources` describes, and is where the command starts. The driver runs on the head node.
    Without `wait` the call returns as soon as the cluster has taken the job. Ray finds the token by itself.
    Interrupting the call leaves the job running.

    Raises:
        ClusterError: the cluster cannot be reached or refuses token or job; the sources are too large.
    """
    variables_of_job = dict(env or {})
    if secrets := [name for name in _SECRETS if name in variables_of_job]:
        raise ClusterError(
            f"{secrets[0]} must not travel with a job: whoever sees the cluster's dashboard can read its "
            "variables; the cluster's nodes have the token already"
        )
    identifier = submission_id or f"job-{uuid.uuid4().hex[:12]}"
    with tempfile.TemporaryDirectory(prefix="job-") as scratch, _talking_to(address):
        archive = Path(scratch) / "sources.zip"
        pack(working_dir or Path.cwd(), archive)
        client = JobSubmissionClient(address)
        client.submit_job(
            entrypoint=shlex.join(entrypoint),
            submission_id=identifier,
            runtime_env={"working_dir": str(archive), "env_vars": variables_of_job},
        )
        if not wait:
            return _result(client.get_job_info(identifier))
        asyncio.run(_follow(client, identifier))
        return _finished(client, identifier)


def stop_job(submission_id: str, *, address: str | None = None) -> bool:
    """Asks one job to stop (SIGTERM, then SIGKILL); False when it had ended already.

    Raises:
        ClusterError: the cluster cannot be reached, refuses the token, or does not know the job.
    """
    with _talking_to(address):
        return bool(JobSubmissionClient(address).stop_job(submission_id))


async def _follow(client: JobSubmissionClient, submission_id: str) -> None:
    """Copies the log to standard output; after a lost connection it goes on where it was."""
    written = 0
    for _ in range(_RECONNECTS):
        position = 0
        try:
            async for chunk in client.tail_job_logs(submission_id):
                fresh = chunk[max(0, written - position) :]
                position += len(chunk)
                written = max(written, position)
                sys.stdout.write(fresh)
                sys.stdout.flush()
        except (RuntimeError, aiohttp.ClientError, OSError):
            if client.get_job_status(submission_id).is_terminal():
                return
            await asyncio.sleep(_RECONNECT_WAIT_S)
        else:
            return
    raise ClusterError(
        f"lost the log of job {submission_id} {_RECONNECTS} times; it may be running still: "
        f"look with `ray job status {submission_id}`, or follow it with `ray job logs -f {submission_id}`"
    )


def _finished(client: JobSubmissionClient, submission_id: str) -> JobResult:
    while not (info := client.get_job_info(submission_id)).status.is_terminal():
        time.sleep(_POLL_S)
    return _result(info)


def _result(info: JobDetails) -> JobResult:
    exit_codes: dict[JobStatus, int] = {
        JobStatus.SUCCEEDED: 0,
        JobStatus.FAILED: info.driver_exit_code or 1,
        JobStatus.STOPPED: _STOPPED_EXIT_CODE,
    }
    return JobResult(
        submission_id=str(info.submission_id),
        status=str(info.status.value),
        exit_code=exit_codes.get(info.status),
        message=info.message or "",
    )


@contextmanager
def _talking_to(address: str | None) -> Iterator[None]:
    """Turns what can go wrong between here and a job server into errors that say what to do."""
    if address is not None and not address.startswith(("http://", "https://")):
        raise ClusterError(
            f"{address} is no address of a job server; write it as http://host:8265, the cluster's dashboard"
        )
    where = (
        address or os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or "this machine"
    )
    # Ray lets these variables win over the address that it is given.
    pinned = {"RAY_API_SERVER_ADDRESS": address} if address else {}
    try:
        with variables(pinned):
            yield
    except AuthenticationError as error:
        raise ClusterError(f"{where} refuses this user ({_first_line(error)}); {AUTH_RECIPE}") from error
    except (ConnectionError, requests.RequestException, aiohttp.ClientError) as error:
        raise ClusterError(
            f"no job server answers at {where}: {_first_line(error)}; is the cluster up, is its dashboard "
            "reachable from here (port 8265), is the address right?"
        ) from error
    except RuntimeError as error:
        raise ClusterError(_explain(where, str(error))) from error


def _explain(where: str, text: str) -> str:
    if "already exists" in text:
        return f"{where} knows a job of that id already; choose another id, or stop and delete that job"
    if "does not exist" in text:
        return f"{where} knows no such job; list them with `ray job list`"
    if match := re.search(r"status code (401|403)", text):
        return f"{where} refuses this user (HTTP {match[1]}); {AUTH_RECIPE}"
    return f"{where} refuses the job: {text.strip().splitlines()[-1]}"


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
