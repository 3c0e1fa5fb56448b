"""Caches of the Hugging Face hub, as its client leaves them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import pytest

_COMMIT = "0123456789abcdef0123456789abcdef01234567"


def in_hub_cache(
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    repository: str,
    files: Mapping[str, bytes],
    *,
    without: Collection[str] = (),
) -> None:
    """A cache with these files of a repository in it, which is known to have none called `without`."""
    repository_folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = repository_folder / "snapshots" / _COMMIT
    snapshot.mkdir(parents=True)
    for name, content in files.items():
        (snapshot / name).write_bytes(content)
    (repository_folder / ".no_exist" / _COMMIT).mkdir(parents=True)
    for name in without:
        (repository_folder / ".no_exist" / _COMMIT / name).touch()
    (repository_folder / "refs").mkdir()
    (repository_folder / "refs" / "main").write_text(_COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
