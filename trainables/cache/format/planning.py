"""Which shards a build has to compute: those without a valid commit record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from trainables.cache.format.identity import bank_fingerprint, differences, plain_recipe, refuse
from trainables.cache.format.manifest import (
    MANIFEST,
    ORIGIN,
    Manifest,
    Origin,
    Part,
    Shard,
    ShardRecord,
    kept_manifest,
    read_manifest,
    read_record,
    totals,
    write_manifest,
    write_record,
)
from trainables.cache.format.storage import Place
from trainables.config import BankConfig
from trainables.errors import CacheError


@dataclass(frozen=True)
class Plan:
    """What a complete cache needs, and what of it is there."""

    origin: Origin
    banks: Mapping[str, BankConfig]
    committed: Mapping[Shard, ShardRecord]
    missing: tuple[Shard, ...]


def claim_folder(place: Place, wanted: Origin) -> Origin:
    """Say what the folder is for, or refuse it when it is for something else.

    New banks and embeddings are added to what the folder holds. The shard size of an existing folder stands.

    Raises:
        CacheError: naming each part that differs.
    """
    found = read_record(place, ORIGIN, Origin)
    merged = _merged(place, found, wanted)
    if merged != found:
        write_record(place, ORIGIN, merged)
    return merged


def agreed_origin(place: Place, wanted: Origin) -> Origin:
    """What `claim_folder` would make of the folder; nothing is written.

    Raises:
        CacheError: as for `claim_folder`.
    """
    return _merged(place, read_record(place, ORIGIN, Origin), wanted)


def _merged(place: Place, found: Origin | None, wanted: Origin) -> Origin:
    if found is None:
        return wanted
    clauses = differences(found.identity, wanted.identity)
    for bank, recipe in wanted.recipes.items():
        kept = found.recipes.get(bank, recipe)
        if kept != recipe:
            clauses.append(
                f"cache shows bank {bank} by recipe {plain_recipe(kept)}, "
                f"this experiment uses {plain_recipe(recipe)}"
            )
    refuse(place.uri, clauses)
    return found.with_overrides(
        recipes={**wanted.plain()["recipes"], **found.plain()["recipes"]},
        embedding=found.embedding or wanted.embedding,
    )


def plan_shards(place: Place, origin: Origin, banks: Mapping[str, BankConfig]) -> Plan:
    """Compare the folder with what `banks` need.

    Banks and views that a manifest already promises stay part of the cache. A shard is there when its
    commit record bears the bank's fingerprint and its file has the recorded size.

    Raises:
        CacheError: a record that cannot be read.
    """
    sizes = place.sizes()
    promised = read_manifest(place)[0].banks if MANIFEST in sizes else {}
    banks = {name: _larger(banks.get(name), promised.get(name)) for name in sorted({*banks, *promised})}
    committed: dict[Shard, ShardRecord] = {}
    missing: list[Shard] = []
    for name, bank in banks.items():
        wanted = bank_fingerprint(origin.identity, bank.recipe)
        for shard in _shards(origin, name, bank.views):
            record = read_record(place, shard.commit, ShardRecord) if shard.commit in sizes else None
            if record is not None and _is_valid(record, shard, wanted, sizes):
                committed[shard] = record
            else:
                missing.append(shard)
    return Plan(origin, banks, committed, tuple(missing))


def publish(place: Place, plan: Plan, versions: Mapping[str, str]) -> str:
    """Write the manifest of a plan without missing shards and return its sha256.

    A manifest that already says so is left as it is, and so keeps its sha256.

    Raises:
        CacheError: shards are missing.
    """
    if plan.missing:
        raise CacheError(
            f"{len(plan.missing)} shards of {place.uri} are missing after the build, first "
            f"{plan.missing[0].file}; the folder must be one that every node reaches (a shared mount or s3://)"
        )
    rows, size = totals(plan.committed)
    manifest = Manifest(
        identity=plan.origin.identity,
        n_rows=plan.origin.n_rows,
        classes=plan.origin.classes,
        banks=dict(plan.banks),
        shards=tuple(plan.committed.values()),
        rows=rows,
        bytes=size,
        versions=dict(versions),
    )
    sizes = place.sizes()
    if MANIFEST in sizes:
        found, sha256 = read_manifest(place)
        is_kept = sizes.get(kept_manifest(sha256)) == sizes[MANIFEST]
        if is_kept and found == manifest.with_overrides(versions=found.versions):
            return sha256
    return write_manifest(place, manifest)


def shards_of(bank: str, views: int, *, n_rows: int, rows_per_shard: int) -> Iterator[Shard]:
    """The shards of a bank, view by view, in the order of their rows."""
    for view in range(views):
        for index, first in enumerate(range(0, n_rows, rows_per_shard)):
            rows = min(rows_per_shard, n_rows - first)
            yield Shard(bank=bank, view=view, index=index, first=first, rows=rows)


def together(shards: Iterable[Shard]) -> list[tuple[Shard, ...]]:
    """Shards in groups of the same rows of the same view: one pass of the teacher gives all parts of them."""
    groups: dict[tuple[str, int, int], list[Shard]] = {}
    for shard in shards:
        groups.setdefault((shard.bank, shard.view, shard.index), []).append(shard)
    return [tuple(group) for group in groups.values()]


def answers_of(shards: Iterable[Shard]) -> int:
    """Answers of the teacher that shards need; logits and embedding of a row are one."""
    return sum(group[0].rows for group in together(shards))


def _shards(origin: Origin, bank: str, views: int) -> Iterator[Shard]:
    for shard in shards_of(bank, views, n_rows=origin.n_rows, rows_per_shard=origin.rows_per_shard):
        yield shard
        if origin.embedding:
            yield shard.with_overrides(part=Part.EMBEDDING)


def _larger(wanted: BankConfig | None, promised: BankConfig | None) -> BankConfig:
    both = [bank for bank in (wanted, promised) if bank is not None]
    return max(both, key=lambda bank: bank.views)


def _is_valid(record: ShardRecord, shard: Shard, fingerprint: str, sizes: Mapping[str, int]) -> bool:
    return (
        record.shard == shard and record.fingerprint == fingerprint and sizes.get(record.file) == record.bytes
    )
