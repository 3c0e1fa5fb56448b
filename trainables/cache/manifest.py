"""The records beside the Parquet files: what the folder is for, which shards are committed, the manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Final, TypeVar

from pydantic import Field, ValidationError

from trainables.cache.identity import SCHEMA_VERSION, refuse
from trainables.cache.storage import Place
from trainables.config import BankConfig, CacheIdentity, Config, Recipe
from trainables.errors import CacheError

# The names begin with `_`, because Parquet readers skip such files when they are given the folder.
MANIFEST: Final = "_manifest.json"
ORIGIN: Final = "_identity.json"

RecordT = TypeVar("RecordT", bound=Config)


class DamagedCache(CacheError):
    """Shards that are missing or are not what their commit records say; `discard_shards` has them rebuilt."""

    def __init__(self, message: str, shards: tuple[Shard, ...]) -> None:
        super().__init__(message)
        self.shards = shards


class Shard(Config):
    """One Parquet file: a contiguous range of rows of the training split, in one view of a bank."""

    bank: str
    view: int = Field(ge=0)
    index: int = Field(ge=0, description="number of the shard in its view")
    first: int = Field(ge=0, description="row of the training split that comes first")
    rows: int = Field(ge=1)

    @property
    def file(self) -> str:
        """Name of the Parquet file in the cache's folder."""
        return f"bank={self.bank}/view={self.view:04d}/shard-{self.index:05d}.parquet"

    @property
    def commit(self) -> str:
        """Name of the commit record in the cache's folder."""
        return f"_commits/{self.bank}-{self.view:04d}-{self.index:05d}.json"


class ShardRecord(Config):
    """The commit record of a shard: the file counts only when this is there."""

    shard: Shard
    file: str
    first_id: int = Field(description="sample id of the first row")
    last_id: int = Field(description="sample id of the last row")
    bytes: int
    sha256: str = Field(description="of the whole file")
    correct: int = Field(description="rows whose teacher_top1 is their label")
    fingerprint: str = Field(description="of the identity and the bank's recipe")


class Origin(Config):
    """What a cache folder is for; written before the first shard."""

    identity: CacheIdentity
    n_rows: int = Field(ge=1, description="samples in the training split")
    classes: tuple[str, ...] = Field(description="class names in the order of the logits")
    rows_per_shard: int = Field(ge=1)
    recipes: dict[str, Recipe] = Field(description="of each bank")


class Manifest(Config):
    """A complete cache: written when every shard of every view of every bank is committed."""

    identity: CacheIdentity
    n_rows: int
    classes: tuple[str, ...]
    banks: dict[str, BankConfig]
    shards: tuple[ShardRecord, ...]
    rows: int = Field(description="of all shards: samples x views")
    bytes: int = Field(description="of all shards")
    versions: dict[str, str] = Field(description="of the libraries that wrote it")

    def shards_of(self, bank: str, view: int) -> tuple[ShardRecord, ...]:
        """The shards of one view, in the order of their rows."""
        return tuple(r for r in self.shards if r.shard.bank == bank and r.shard.view == view)

    def correct(self, bank: str, view: int) -> int:
        """How many samples of one view the teacher got right, as recorded when it was written."""
        return sum(record.correct for record in self.shards_of(bank, view))


def read_record(place: Place, name: str, kind: type[RecordT]) -> RecordT | None:
    """A record of the folder, or none when there is no such file.

    Raises:
        CacheError: the file is not such a record.
    """
    try:
        text = place.read(name).to_pybytes()
    except FileNotFoundError:
        return None
    return _parse(text, kind, place.path(name))


def write_record(place: Place, name: str, record: Config) -> None:
    """Write a record as JSON, atomically."""
    place.write(name, _encode(record))


def write_manifest(place: Place, manifest: Manifest) -> str:
    """Publish a manifest and return its sha256.

    It is kept under that sha256 too, so that a search that began before views were added still
    finds the manifest that it verified.
    """
    data = _encode(manifest)
    sha256 = hashlib.sha256(data).hexdigest()
    place.write(_kept_manifest(sha256), data)
    place.write(MANIFEST, data)
    return sha256


def read_manifest(place: Place, sha256: str | None = None) -> tuple[Manifest, str]:
    """The manifest and its sha256: the current one, or the one of that sha256.

    Raises:
        CacheError: there is none, it is damaged, or it has another format.
    """
    data = manifest_bytes(place, sha256)
    path = place.path(MANIFEST if sha256 is None else _kept_manifest(sha256))
    return parse_manifest(data, path), hashlib.sha256(data).hexdigest()


def manifest_bytes(place: Place, sha256: str | None = None) -> bytes:
    """The bytes of the current manifest, or of the one of that sha256.

    Raises:
        CacheError: there is none, or it was altered.
    """
    name = MANIFEST if sha256 is None else _kept_manifest(sha256)
    try:
        data: bytes = place.read(name).to_pybytes()
    except FileNotFoundError as error:
        raise CacheError(
            f"there is no complete teacher cache at {place.uri} ({name} is missing); run the cache stage"
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if sha256 not in (None, found):
        raise CacheError(
            f"{place.path(name)} was altered (its sha256 is {found}); remove it and run the cache stage"
        )
    return data


def parse_manifest(data: bytes, path: str) -> Manifest:
    """The manifest in a file's bytes; `path` is for messages.

    Raises:
        CacheError: it is damaged or has another format.
    """
    manifest = _parse(data, Manifest, path)
    version = manifest.identity.schema_version
    if version != SCHEMA_VERSION:
        refuse(path, [f"cache has format {version}, this version reads format {SCHEMA_VERSION}"])
    return manifest


def discard_shards(place: Place, shards: tuple[Shard, ...]) -> None:
    """Withdraw the commit records of shards, so that the next build computes those, and only those, again."""
    for shard in shards:
        place.remove(shard.commit)


def totals(records: Mapping[Shard, ShardRecord]) -> tuple[int, int]:
    """Rows and bytes of shards."""
    return sum(shard.rows for shard in records), sum(record.bytes for record in records.values())


def _kept_manifest(sha256: str) -> str:
    return f"_manifests/{sha256}.json"


def _encode(record: Config) -> bytes:
    return json.dumps(record.plain(), indent=1, sort_keys=True).encode() + b"\n"


def _parse(data: bytes, kind: type[RecordT], path: str) -> RecordT:
    try:
        return kind.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise CacheError(
            f"{path} is not a readable {kind.__name__} record ({error.error_count()} problems, first: "
            f"{error.errors()[0]['msg']}); remove it and run the cache stage"
        ) from error
