"""What a submitted job gets to see: the sources of a folder, packed into one archive of a known size."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster.errors import ClusterError

UPLOAD_LIMIT_BYTES: Final = 100 * 1024**2
_RAW_LIMIT_BYTES: Final = 10 * UPLOAD_LIMIT_BYTES
_LARGEST_NAMED: Final = 10
_MOST_FILES: Final = 100_000
_MOST_FOLDERS: Final = 2_000
"""Behind links, and repositories within: git is asked about each."""
# Results, environments and caches: no sources, unless git tracks them.
_EXCLUDED: Final = frozenset(
    {
        ".git",
        ".hg",
        ".venv",
        "venv",
        "out",
        "mlruns",
        "mlartifacts",
        "mlflow.db",
        "wandb",
        "node_modules",
        "__pycache__",
        ".mypy_cache",
        ".ruff_cache",
        ".pytest_cache",
        ".hypothesis",
        ".ipynb_checkpoints",
    }
)
_EXCLUDED_SUFFIXES: Final = (".egg-info", ".pyc")
# The zip format starts with this day; the same sources must give the same archive, which is sent once.
_FIXED_TIME: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Source:
    """One file to pack: its path below the folder, and its size."""

    path: Path
    size_bytes: int


def sources(folder: Path) -> list[Source]:
    """The files that a job needs, sorted by path.

    In a git working tree these are the tracked files as they are on disk, and the new ones that .gitignore
    does not name; elsewhere all files. Untracked results, environments and caches never count. Folders
    behind links, submodules and repositories within the folder are looked at in the same way.

    Raises:
        ClusterError: the folder does not exist or holds no sources, a submodule is not checked out, or there
            is more than a cluster takes.
    """
    if not folder.is_dir():
        raise ClusterError(f"{folder} is no folder; give the one that holds the sources of the job")
    kept: list[Source] = []
    for path in _files(folder, (folder.resolve(),), []):
        kept.append(Source(path, (folder / path).stat().st_size))
        if len(kept) > _MOST_FILES:  # not looked at to the end: a link may lead to a whole disk
            raise ClusterError(_too_large(folder, kept, sum(file.size_bytes for file in kept)))
    if not kept:
        raise ClusterError(f"{folder} holds no sources; run from the folder that holds them")
    return sorted(kept, key=lambda source: source.path)


def pack(folder: Path, archive: Path) -> int:
    """Writes the sources of a folder into a zip archive and gives its size in bytes.

    Raises:
        ClusterError: the archive is larger than a cluster accepts; names the largest files.
    """
    files = sources(folder)
    total = sum(file.size_bytes for file in files)
    if total > _RAW_LIMIT_BYTES:
        raise ClusterError(_too_large(folder, files, total))
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for file in files:
            entry = zipfile.ZipInfo(file.path.as_posix(), _FIXED_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = stat.S_IMODE((folder / file.path).stat().st_mode) << 16
            with (folder / file.path).open("rb") as reader, target.open(entry, "w") as writer:
                shutil.copyfileobj(reader, writer)
    size = archive.stat().st_size
    if size > UPLOAD_LIMIT_BYTES:
        raise ClusterError(_too_large(folder, files, size))
    return size


def _files(folder: Path, within: tuple[Path, ...], seen: list[Path]) -> Iterator[Path]:
    """The files of a folder, by their paths in it; `within` are the folders, resolved, that led here.

    `seen` are all folders behind links so far.
    """
    paths = _git(folder, "--cached")
    paths |= {path for path in _git(folder, "--others", "--exclude-standard") if _is_source(path)}
    if not paths:  # no git, no repository, or a folder that the repository ignores
        paths = {path for path in _walk(folder) if _is_source(path)}
    for path in sorted(paths):
        place = folder / path
        if place.is_file():
            yield path
        elif (
            place.is_dir()
        ):  # git and `os.walk` name links to folders, submodules and repositories as one entry
            yield from (path / inner for inner in _behind(place, within, seen))


def _behind(place: Path, within: tuple[Path, ...], seen: list[Path]) -> Iterator[Path]:
    target = place.resolve()
    if target in within:  # a link that leads back
        return
    seen.append(place)
    if len(seen) > _MOST_FOLDERS:  # links that fork: each level of them has more
        raise ClusterError(f"links lead to over {_MOST_FOLDERS} folders, as {place}; name them in .gitignore")
    if not place.is_symlink() and not any(place.iterdir()):
        raise ClusterError(
            f"submodule {place} is not checked out, so a job would not have it; run `git submodule update "
            "--init --recursive`"
        )
    yield from _files(place, (*within, target), seen)


def _git(folder: Path, *which: str) -> set[Path]:
    git = shutil.which("git")
    if git is None:
        return set()
    command = [git, "-C", str(folder), "ls-files", "-z", *which]
    listed = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL)  # noqa: S603  # no shell
    names = listed.stdout.split(b"\0") if listed.returncode == 0 else []
    return {Path(os.fsdecode(name)) for name in names if name}


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in _EXCLUDED]
        linked = [name for name in folders if Path(parent, name).is_symlink()]
        yield from (Path(parent, name).relative_to(folder) for name in [*files, *linked])


def _is_source(path: Path) -> bool:
    return not any(part in _EXCLUDED or part.endswith(_EXCLUDED_SUFFIXES) for part in path.parts)


def _too_large(folder: Path, files: list[Source], size_bytes: int) -> str:
    largest = sorted(files, key=lambda file: (-file.size_bytes, file.path))[:_LARGEST_NAMED]
    named = "\n".join(f"  {_mebibytes(file.size_bytes):>12}  {file.path}" for file in largest)
    return (
        f"the sources in {folder} are {_mebibytes(size_bytes)} in {len(files)} files; a cluster takes "
        f"{_mebibytes(UPLOAD_LIMIT_BYTES)}. Name data and weights, and links to them, in .gitignore and "
        f"refer to them by path or address on shared storage. The largest:\n{named}"
    )


def _mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / 1024**2:.1f} MiB"
