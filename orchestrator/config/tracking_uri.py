"""The address of an MLflow store: its default and its check."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit


def default_tracking_uri(out: Path) -> str:
    """SQLite in the output folder, as an absolute URI."""
    return f"sqlite:///{out.absolute() / 'mlflow.db'}"


def absolute_tracking_uri(uri: str) -> str:
    """The URI of a store that Stillhouse writes to; the path of an SQLite file is made absolute.

    This is the one check of such a URI: the experiment file, the doctor and the run all get its answer.

    Raises:
        ValueError: a folder or `file:` URI (MLflow 3 refuses them), or an unknown scheme.
    """
    scheme = urlsplit(uri).scheme
    if scheme in ("http", "https"):
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
    raise ValueError(
        f"{scheme} is no store that Stillhouse writes to; use sqlite:////absolute/path/mlflow.db, or the "
        "http(s) address of an MLflow server, which may keep its record in any database"
    )
