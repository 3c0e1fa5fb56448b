"""Ray's token authentication, seen from outside: which mode, where the token comes from. Never the token."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

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
    if environment.get("RAY_AUTH_TOKEN"):
        return "the variable RAY_AUTH_TOKEN"
    path = token_file(environment)
    return f"the file {path}" if path.is_file() else None


def is_readable_by_others(path: Path) -> bool:
    """Whether other users of the machine can read the file."""
    return bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))


def protect_token() -> None:
    """Makes the token file its owner's alone: Ray writes it with the usual rights, readable by everyone."""
    path = token_file()
    if path.is_file() and is_readable_by_others(path):
        path.chmod(stat.S_IRUSR | stat.S_IWUSR)
