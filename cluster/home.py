"""A home folder and a user's name for an id that has none, as Kubernetes and OpenShift give them.

Ray keeps its token in the home folder; MLflow and PyTorch ask for the user's name. Where an id is in no
list of users, and HOME is not set, Python raises KeyError or RuntimeError instead.
"""

from __future__ import annotations

import getpass
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from cluster.errors import ClusterError

_NAMES: Final = ("LOGNAME", "USER", "LNAME", "USERNAME")
"""The variables that Python takes a user's name from."""


def ensure_home() -> str:
    """Give this process, and those that it starts, a home and a name where it has none; a line that says so.

    Empty where it has them. Of a home that can only be read, paths with ~ and the token stay in use.

    Side effect: HOME and LOGNAME; then also STILLHOUSE_HOME, which paths with ~ begin at, and
    RAY_AUTH_TOKEN_PATH.

    Raises:
        ClusterError: no folder can be made for it.
    """
    if _has_no_name():
        os.environ["LOGNAME"] = f"uid-{os.getuid()}"
    why = _why_unusable()
    if why is None:
        return ""
    home = _folder()
    _keep_what_can_be_read()
    os.environ["HOME"] = str(home)
    return f"note: {why}; {home} takes its place: set HOME to a folder that stays\n"


def _has_no_name() -> bool:
    try:
        getpass.getuser()
    except (KeyError, OSError):  # Python 3.13 raises the latter
        return True
    return False


def _why_unusable() -> str | None:
    try:
        home = Path.home()
    except RuntimeError:
        return f"user id {os.getuid()} has no home folder"
    if home.is_dir() and os.access(home, os.W_OK | os.X_OK):
        return None
    return f"the home folder {home} of user id {os.getuid()} cannot be written"


def _keep_what_can_be_read() -> None:
    before = Path(os.environ.get("HOME", ""))
    if not (before.is_absolute() and before.is_dir() and os.access(before, os.R_OK | os.X_OK)):
        return
    os.environ["STILLHOUSE_HOME"] = str(before)
    token = before / ".ray" / "auth_token"
    if not os.environ.get("RAY_AUTH_TOKEN_PATH") and os.access(token, os.R_OK):
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)


def _folder() -> Path:
    """Of this user alone: a token will lie in it."""
    home = Path(tempfile.gettempdir()) / f"stillhouse-{os.getuid()}" / "home"
    try:
        for folder in (home.parent, home):
            folder.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                raise ClusterError(f"{folder} belongs to another user; set HOME to a folder of your own")
    except OSError as error:
        raise ClusterError(
            f"{_why_unusable()}, and {home} cannot be made: {error}; set HOME to a folder that can be written"
        ) from error
    return home
