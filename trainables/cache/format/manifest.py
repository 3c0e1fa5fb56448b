"""The records beside the Parquet files: what the folder is for, which shards are committed, the manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Final, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from trainables.cache.format.identity import SCHEMA_VERSION, part_fingerprint, refuse
from trainables.cache.format.records import Shard, ShardRecord
from trainables.cache.format.storage import Place
from trainables.config import BankConfig, CacheIdentity, Config, Recipe
from trainables.config.cache import CLASSIFIER, LOGITS, TEACHER, FeaturePrecision
from trainables.config.objective_base import EMBEDDING
from trainables.errors import CacheError

# The names begin with `_`, because Parquet readers skip such files when they are given the folder.
MANIFEST: Final = "_manifest.json"
ORIGIN: Final = "_identity.json"
KEPT_MANIFESTS: Final = "_manifests/"

RecordT = TypeVar("RecordT", bound=Config)


class DamagedCache(CacheError):
    """Shards that are missing or are not what their commit records say; `discard_shards` has them rebuilt."""

    def __init__(self, message: str, shards: tuple[Shard, ...]) -> None:
        super().__init__(message)
        self.shards = shards


class Manifest(Config):
    """A complete cache: written when every shard of every view of every bank is committed."""

    identity: CacheIdentity
    n_rows: int
    classes: tuple[str, ...]
    banks: dict[str, BankConfig]
    shards: tuple[ShardRecord, ...]
    rows: int = Field(description="answers: samples x views of all banks")
    bytes: int = Field(description="of all shards")
    versions: dict[str, str] = Field(description="of the libraries that wrote it")
    feature_precision: FeaturePrecision = Field(
        FeaturePrecision.FP16, exclude_if=lambda precision: precision is FeaturePrecision.FP16
    )
    made_by: dict[str, str] = Field(
        default_factory=dict,
        description="by feature: the part of the network that the experiment file says it is, or "
        "`prepared:` and the sha256 of what the teacher was prepared with, which makes it",
        exclude_if=lambda made_by: not made_by,
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """The shards of each view and part cover every row once, and the totals are theirs."""
        covered: dict[tuple[str, int, str], int] = {}
        for record in self.shards:
            shard = record.shard
            key = (shard.bank, shard.view, shard.part)
            if shard.first != covered.get(key, 0):
                raise ValueError(f"{shard.file} begins at row {shard.first} instead of {covered.get(key, 0)}")
            covered[key] = shard.first + shard.rows
        if covered != self._promised({(bank, part) for bank, _, part in covered}):
            raise ValueError("the shards do not cover every row of every view of every bank exactly once")
        rows = self.n_rows * sum(bank.views for bank in self.banks.values())
        size = sum(record.bytes for record in self.shards)
        if (self.rows, self.bytes) != (rows, size):
            raise ValueError(
                f"{self.rows} rows and {self.bytes} bytes are recorded instead of {rows} and {size}"
            )
        if len(self.classes) != self.identity.n_classes:
            raise ValueError(f"{len(self.classes)} class names for {self.identity.n_classes} classes")
        self._require_one_shape()
        return self

    def _promised(self, kept: set[tuple[str, str]]) -> dict[tuple[str, int, str], int]:
        """How many rows there have to be by bank, view and part, where these parts of banks are kept."""
        promised = {
            (name, view, part): self.n_rows
            for name, bank in self.banks.items()
            for view in range(bank.views)
            for part in {part for kept_bank, part in kept if kept_bank == name} | {LOGITS}
        }
        has_classifier = (TEACHER, CLASSIFIER) in kept
        return promised | ({(TEACHER, 0, CLASSIFIER): self.identity.n_classes} if has_classifier else {})

    def _require_one_shape(self) -> None:
        shapes: dict[str, tuple[int, ...] | None] = {}
        for record in self.shards:
            part = record.shard.part
            if part != LOGITS and record.shape is None:
                raise ValueError(f"{record.file} does not say of which shape its rows are")
            if shapes.setdefault(part, record.shape) != record.shape:
                raise ValueError(f"the rows of feature {part} differ in their shape")

    @property
    def recipes(self) -> dict[str, Recipe]:
        """The recipe of each bank."""
        return {name: bank.recipe for name, bank in self.banks.items()}

    @property
    def features(self) -> dict[str, tuple[str, ...]]:
        """The features of each bank that has some; below `teacher` the classifier, where it is kept."""
        found: dict[str, dict[str, None]] = {}
        for record in self.shards:
            if record.shard.part != LOGITS:
                found.setdefault(record.shard.bank, {})[record.shard.part] = None
        return {bank: tuple(names) for bank, names in found.items()}

    def shape_of(self, part: str) -> tuple[int, ...] | None:
        """The shape of one row of a feature; none where the cache keeps none of that name."""
        return next((record.shape for record in self.shards if record.shard.part == part), None)

    @property
    def embedding_width(self) -> int | None:
        """Numbers in an embedding; none when the cache keeps no embeddings."""
        shape = self.shape_of(EMBEDDING)
        return shape[0] if shape else None

    def shards_of(self, bank: str, view: int, part: str = LOGITS) -> tuple[ShardRecord, ...]:
        """The shards of one view, in the order of their rows."""
        wanted = (bank, view, part)
        return tuple(r for r in self.shards if (r.shard.bank, r.shard.view, r.shard.part) == wanted)

    def correct(self, bank: str, view: int) -> int:
        """How many samples of one view the teacher got right, as recorded when it was written."""
        return sum(record.correct for record in self.shards_of(bank, view))

    def fingerprint_of(self, shard: Shard) -> str:
        """What the commit record of a shard has to bear."""
        recipe = self.recipes.get(shard.bank, ())
        made_by = self.made_by.get(shard.part)
        return part_fingerprint(self.identity, recipe, shard.part, self.feature_precision, made_by)


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
    place.write(kept_manifest(sha256), data)
    place.write(MANIFEST, data)
    return sha256


def read_manifest(place: Place, sha256: str | None = None) -> tuple[Manifest, str]:
    """The manifest and its sha256: the current one, or the one of that sha256.

    Raises:
        CacheError: there is none, it is damaged, or it has another format.
    """
    data = manifest_bytes(place, sha256)
    path = place.path(MANIFEST if sha256 is None else kept_manifest(sha256))
    return parse_manifest(data, path), hashlib.sha256(data).hexdigest()


def manifest_bytes(place: Place, sha256: str | None = None) -> bytes:
    """The bytes of the current manifest, or of the one of that sha256.

    Raises:
        CacheError: there is none, or it was altered.
    """
    name = MANIFEST if sha256 is None else kept_manifest(sha256)
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
    """Rows (those of features are the same ones) and bytes of shards."""
    rows = sum(shard.rows for shard in records if shard.part == LOGITS)
    return rows, sum(record.bytes for record in records.values())


def kept_manifest(sha256: str) -> str:
    """Name under which a manifest is kept for those who began with it."""
    return f"{KEPT_MANIFESTS}{sha256}.json"


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
