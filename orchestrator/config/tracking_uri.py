"""The address of an MLflow store: its default and its check."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}(?=:)")
_ODD: Final = re.compile(r"^\s|\s$|[\x00-\x1f\x7f]|^https?:.*\s")
_DATABASES: Final = frozenset({"postgresql", "mysql", "mssql"})
"""Those that MLflow keeps its record in, beside SQLite."""
_WRITE: Final = "write sqlite:////absolute/path/mlflow.db or the http(s)://server address of an MLflow server"


def default_tracking_uri(out: Path) -> str:
    """SQLite in the output folder, as an absolute URI."""
    return f"sqlite:///{out.absolute() / 'mlflow.db'}"


def absolute_tracking_uri(uri: str) -> str:
    """The URI of a store that Stillhouse writes to; the path of an SQLite file is made absolute.

    This is the one check of such a URI: the experiment file, the doctor and the run all get its answer.

    Raises:
        ValueError: nothing, a folder or `file:` URI (MLflow 3 refuses them), an unknown scheme, or a server
            without a name or with a port that there cannot be.
    """
    if _ODD.search(uri) or not uri:
        what = "it is empty" if not uri else "it holds blanks or control characters"
        raise ValueError(f"{what}; {_WRITE}")
    found = _SCHEME.match(uri)
    scheme = found[0].lower() if found else ""
    if scheme in ("http", "https"):
        _require_server(uri)
        return uri
    if scheme == "sqlite":
        name = uri.removeprefix("sqlite:///")
        if name == uri or name in ("", ":memory:"):
            raise ValueError("it names no file; write sqlite:////absolute/path/mlflow.db")
        return f"sqlite:///{Path(name).absolute()}"
    if scheme in ("", "file"):
        raise ValueError(
            "it is a folder, which MLflow 3 no longer writes to; use sqlite:////absolute/path/mlflow.db or "
            "http(s)://server (`mlflow migrate-filestore` moves old runs)"
        )
    if scheme.partition("+")[0] in _DATABASES:
        # MLflow keeps files beside the runs, and one server has one place for them; a client alone has none.
        raise ValueError(
            f"{scheme} is a database: start `mlflow server --backend-store-uri {scheme}://...` on it and "
            "write that server's http(s) address, or use sqlite:////absolute/path/mlflow.db"
        )
    raise ValueError(
        f"{scheme} is no store that Stillhouse writes to; use sqlite:////absolute/path/mlflow.db, or the "
        "http(s) address of an MLflow server, which may keep its record in any database"
    )


def _require_server(uri: str) -> None:
    """Refuse an address that cannot be one.

    Raises:
        ValueError: what is wrong with it; what stands for a password is not told.
    """
    try:
        parts = urlsplit(uri)
        if parts.hostname and parts.port != 0:
            return
    except ValueError:
        pass
    raise ValueError(f"it names no server, or a port outside 1 to 65535; {_WRITE}")
