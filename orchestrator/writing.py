"""Whole files that appear at once: a reader sees the old text or the new one, never a part."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from trainables.errors import StillhouseError


def replace_text(path: Path, text: str) -> None:
    """Write beside, push to disk, then replace in one step; the folder is made where missing.

    Raises:
        StillhouseError: the file cannot be written; what was there is intact.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(beside).chmod(0o644)  # mkstemp makes it private; a report is there to be read
            Path(beside).replace(path)
        finally:
            Path(beside).unlink(missing_ok=True)
    except OSError as error:
        raise StillhouseError(f"cannot write {path}: {error}; what was there is intact") from error
