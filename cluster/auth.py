"""Ray's token authentication, seen from outside: which mode, where the token comes from. Never the token."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError

AUTH_RECIPE = (
    "on the head node run `ray get-auth-token --generate`, and `chmod 600 ~/.ray/auth_token`: Ray leaves it "
    "readable by all; here export RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH, a file) "
    "with that cluster's token"
)


def token_file(environment: Mapping[str, str] = os.environ) -> Path:
    """The file that Ray reads the token from, existing or not."""
    return Path(environment.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def token_source(environment: Mapping[str, str] = os.environ) -> str | None:
    """Where the token comes from, in Ray's order of preference, or None where there is none."""
    if not _has_token(environment):
        return None
    if "RAY_AUTH_TOKEN" in environment:
        return "the variable RAY_AUTH_TOKEN"
    return f"the file {token_file(environment)}"


def is_readable_by_others(path: Path) -> bool:
    """Whether other users of the machine can read the file."""
    return bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))


def protect_token() -> None:
    """Makes the token file its owner's alone: Ray writes it with the usual rights, readable by everyone."""
    path = token_file()
    if path.is_file() and is_readable_by_others(path):
        path.chmod(stat.S_IRUSR | stat.S_IWUSR)


def require_token(address: str) -> None:
    """Asks the cluster at host:port, once, whether it lets this process in; `ray.init` asks for 20 s, aloud.

    Raises:
        AuthenticationError: it does not.
        ray.exceptions.RayError: it does not answer.
    """
    if os.environ.get("RAY_AUTH_MODE") == "token" and not _has_token():
        raise AuthenticationError("there is no token")  # Ray would end the process, with a stack trace
    with _errors_kept_back():
        GcsClient(address=address)


def _has_token(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether there is a token where Ray looks for it, which does not pass over an empty variable."""
    if "RAY_AUTH_TOKEN" in environment:
        return bool(environment["RAY_AUTH_TOKEN"].strip())
    try:
        return bool(token_file(environment).read_bytes().strip())
    except OSError:
        return False


@contextmanager
def _errors_kept_back() -> Iterator[None]:
    """What Ray's C++ writes to standard error is dropped where the token is refused, and else told."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as said:
        before = os.dup(2)
        os.dup2(said.fileno(), 2)
        refused = False
        try:
            yield
        except AuthenticationError:
            refused = True
            raise
        finally:
            os.dup2(before, 2)
            os.close(before)
            if not refused:
                said.seek(0)
                os.write(2, said.read())
