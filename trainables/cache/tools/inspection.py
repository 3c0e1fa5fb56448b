"""Whether the files of a cache are what its records say, and which are not; nothing here changes a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import pyarrow.parquet as pq

from trainables.cache.format.manifest import (
    KEPT_MANIFESTS,
    MANIFEST,
    ORIGIN,
    Manifest,
    kept_manifest,
    read_manifest,
    read_record,
)
from trainables.cache.format.records import Origin, Shard, ShardRecord
from trainables.cache.format.storage import LOCK, Place, told
from trainables.cache.tools.callbacks import OnStep
from trainables.errors import CacheError
from trainables.foreign_files import Unreadable, foreign_file

COMMITS: Final = "_commits/"


class Fault(StrEnum):
    """What can be wrong in a cache's folder."""

    MISSING = "missing"
    TRUNCATED = "wrong size"
    ALTERED = "altered"
    UNCOMMITTED = "no valid commit record"
    STALE = "stale manifest"
    FOREIGN = "foreign file"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    fault: Fault
    file: str
    """Name below the cache's folder."""
    detail: str
    shard: Shard | None = None
    """What has to be computed again; none where nothing has."""

    def sentence(self) -> str:
        """Fault, file and detail in one line."""
        return f"{self.fault}: {self.file}: {self.detail}"


@dataclass(frozen=True)
class Inspection:
    """What was looked at, and what is wrong."""

    manifest: Manifest | None
    """None when it cannot be read; then nothing else was looked at."""
    files: int
    findings: tuple[Finding, ...]

    @property
    def damaged(self) -> tuple[Shard, ...]:
        """Shards that have to be computed again."""
        return tuple(finding.shard for finding in self.findings if finding.shard is not None)

    @property
    def is_stale(self) -> bool:
        """Whether the manifest has to be written again."""
        return any(finding.fault is Fault.STALE for finding in self.findings)


def inspect_cache(place: Place, *, deep: bool = False, progress: OnStep = lambda *_: None) -> Inspection:
    """Compare the folder with its manifest and commit records.

    Cheap: each file is there, has the recorded size, and its footer the recorded number of rows. Deep: the
    sha256 of each file and of each manifest that is kept too, for which all of it is read.

    Raises:
        CacheError: there is no cache there, or the folder cannot be read.
    """
    sizes = place.sizes()
    if not {MANIFEST, ORIGIN} & sizes.keys():
        raise CacheError(
            f"there is no teacher cache at {place.uri}; run the cache stage, or give another place"
        )
    try:
        manifest, sha256 = read_manifest(place)
    except CacheError as error:
        return Inspection(None, 0, (Finding(Fault.STALE, MANIFEST, str(error)),))
    findings = list(_stale_records(place, manifest, sha256, sizes))
    if deep:
        told_of = {finding.file for finding in findings}
        findings += [finding for finding in _altered_manifests(place, sizes) if finding.file not in told_of]
    total = len(manifest.shards)
    for number, promised in enumerate(manifest.shards):
        progress(number, total)
        finding = _look_at(place, manifest, promised, sizes, deep=deep)
        if finding is not None:
            findings.append(finding)
    progress(total, total)
    return Inspection(manifest, total, (*findings, *_foreign(place, manifest, sizes)))


def _stale_records(
    place: Place, manifest: Manifest, sha256: str, sizes: Mapping[str, int]
) -> Iterator[Finding]:
    try:
        origin = read_record(place, ORIGIN, Origin)
    except CacheError as error:
        yield Finding(Fault.STALE, ORIGIN, str(error))
        return
    if origin is None:
        yield Finding(Fault.STALE, ORIGIN, "is missing; without it nothing can be added to the cache")
    elif origin.identity != manifest.identity:
        yield Finding(Fault.STALE, MANIFEST, f"is not of the cache that {ORIGIN} describes")
    elif (origin.n_rows, origin.classes) != (manifest.n_rows, manifest.classes):
        yield Finding(Fault.STALE, ORIGIN, f"has other samples or classes than {MANIFEST}")
    kept = kept_manifest(sha256)
    if sizes.get(kept) != sizes[MANIFEST]:
        yield Finding(
            Fault.STALE, kept, "is missing or cut short; runs that began with this manifest need it"
        )


def _altered_manifests(place: Place, sizes: Mapping[str, int]) -> Iterator[Finding]:
    """Manifests kept for the runs that began with them, whose content is not that of their name."""
    for name in sorted(sizes):
        if name.startswith(KEPT_MANIFESTS) and name != kept_manifest(_sha256(place, name)):
            yield Finding(Fault.STALE, name, "was altered; runs that began with this manifest refuse it")


def _sha256(place: Place, name: str) -> str:
    return hashlib.sha256(place.read(name)).hexdigest()


def _look_at(
    place: Place, manifest: Manifest, promised: ShardRecord, sizes: Mapping[str, int], *, deep: bool
) -> Finding | None:
    """What is wrong with one shard: its commit record counts, and a manifest that says otherwise is stale."""
    shard = promised.shard
    try:
        record = read_record(place, shard.commit, ShardRecord) if shard.commit in sizes else None
    except CacheError as error:
        return Finding(Fault.UNCOMMITTED, shard.commit, str(error), shard)
    wanted = manifest.fingerprint_of(shard)
    if record is None or record.shard != shard or record.fingerprint != wanted:
        what = "is missing" if record is None else "is of another cache or another range of rows"
        return Finding(Fault.UNCOMMITTED, shard.commit, what, shard)
    finding = _look_at_file(place, record, sizes.get(record.file), deep=deep)
    if finding is None and record != promised:
        return Finding(Fault.STALE, MANIFEST, f"does not say of {shard.file} what its commit record says")
    return finding


def _look_at_file(place: Place, record: ShardRecord, size: int | None, *, deep: bool) -> Finding | None:
    shard, file = record.shard, record.file
    if size is None:
        return Finding(Fault.MISSING, file, "is not there", shard)
    if size != record.bytes:
        return Finding(Fault.TRUNCATED, file, f"has {size} bytes instead of {record.bytes}", shard)
    try:
        if deep and _sha256(place, file) != record.sha256:
            return Finding(Fault.ALTERED, file, "its sha256 is not the recorded one", shard)
        with foreign_file(Unreadable, told):
            rows = _rows_of(place, file)
    except FileNotFoundError:
        return Finding(Fault.MISSING, file, "vanished while it was read", shard)
    except Unreadable as error:
        return Finding(Fault.ALTERED, file, f"its footer cannot be read ({error})", shard)
    if rows != shard.rows:
        return Finding(Fault.ALTERED, file, f"has {rows} rows instead of {shard.rows}", shard)
    return None


def _rows_of(place: Place, file: str) -> int:
    with place.filesystem.open_input_file(place.path(file)) as source:
        return int(pq.read_metadata(source).num_rows)


def _foreign(place: Place, manifest: Manifest, sizes: Mapping[str, int]) -> Iterator[Finding]:
    """Files that no record knows; shards of views that are not published yet have commit records."""
    known = {MANIFEST, ORIGIN, LOCK}
    known |= {name for record in manifest.shards for name in (record.file, record.shard.commit)}
    commits = [name for name in sizes if name.startswith(COMMITS) and name not in known]
    for commit in commits:
        with suppress(CacheError):  # a record that cannot be read is foreign
            record = read_record(place, commit, ShardRecord)
            if record is not None and record.shard.commit == commit:
                known |= {commit, record.file}
    for name in sorted(sizes.keys() - known):
        if not name.startswith(KEPT_MANIFESTS):
            yield Finding(
                Fault.FOREIGN,
                name,
                "no record knows it, but whoever reads the whole folder reads it too; move it elsewhere",
            )
