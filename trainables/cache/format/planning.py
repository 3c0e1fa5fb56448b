"""Which shards a build has to compute: those that it asks for and that have no valid commit record."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise

from trainables.cache.format.agreement import asked_of, features_of_both, merged_origin
from trainables.cache.format.manifest import (
    MANIFEST,
    ORIGIN,
    Manifest,
    kept_manifest,
    read_manifest,
    read_record,
    totals,
    write_manifest,
    write_record,
)
from trainables.cache.format.records import Origin, Shard, ShardRecord
from trainables.cache.format.storage import Place
from trainables.config import BankConfig
from trainables.config.cache import CLASSIFIER, LOGITS, TEACHER, is_whole_map
from trainables.errors import CacheError


@dataclass(frozen=True)
class Plan:
    """What a complete cache needs, and what of it is there."""

    origin: Origin
    """With the features that are asked for."""
    banks: Mapping[str, BankConfig]
    committed: Mapping[Shard, ShardRecord]
    """Of what is asked for, and of the folder's other features those that are there for every view."""
    missing: tuple[Shard, ...]
    made_by: Mapping[str, str] = field(default_factory=dict)
    """What makes the features, the folder's others too."""


def claim_folder(place: Place, wanted: Origin) -> Origin:
    """Say what the folder is for, or refuse it when it is for something else.

    New banks and features are added to what the folder holds. The shard sizes of an existing folder stand.
    What comes back has the features that are wanted alone, since nobody else's can be computed here: another
    experiment may say that they are other parts of the network, or have prepared the teacher for them.

    Raises:
        CacheError: naming each part that differs.
    """
    found = read_record(place, ORIGIN, Origin)
    merged = merged_origin(place.uri, found, wanted)
    if merged != found:
        write_record(place, ORIGIN, merged)
    return asked_of(merged, wanted)


def agreed_origin(place: Place, wanted: Origin) -> Origin:
    """What `claim_folder` would make of the folder; nothing is written.

    Raises:
        CacheError: as for `claim_folder`.
    """
    found = read_record(place, ORIGIN, Origin)
    return asked_of(merged_origin(place.uri, found, wanted), wanted)


def plan_shards(place: Place, origin: Origin, banks: Mapping[str, BankConfig]) -> Plan:
    """Compare the folder with what `banks` need of logits and of the features of `origin`.

    Banks and views that a manifest already promises stay part of the cache, but for views that are not asked
    for and lack a feature that is. A shard is there when its commit record bears the bank's fingerprint and
    its file has the recorded size. Other features that the folder keeps stay part of the cache where they are
    there for all of its views, and never are missing: those that lack some keep their files, for the
    experiment that asks for them.

    Raises:
        CacheError: a record that cannot be read.
    """
    sizes = place.sizes()
    promised = read_manifest(place)[0].banks if MANIFEST in sizes else {}
    every = {name: _larger(banks.get(name), promised.get(name)) for name in sorted({*banks, *promised})}
    folder = read_record(place, ORIGIN, Origin) if ORIGIN in sizes else None
    if folder is None or folder.identity != origin.identity:
        folder = origin
    asked = {name: (LOGITS, *(origin.features.get(name, ()) if name in banks else ())) for name in every}
    asked[TEACHER] = origin.features.get(TEACHER, ())
    whole = origin.with_overrides(features=features_of_both(folder, origin))
    found: dict[Shard, ShardRecord | None] = {}
    for shard in all_shards(whole, every):
        is_asked = shard.part in asked[shard.bank]
        found[shard] = _valid_record(place, shard, origin if is_asked else folder, sizes, is_asked=is_asked)
    kept = {
        name: _covered(bank, banks.get(name), _lacking(found, name, asked)) for name, bank in every.items()
    }
    found = {s: record for s, record in found.items() if s.bank == TEACHER or s.view < kept[s.bank].views}
    lacking = {(s.bank, s.part) for s, record in found.items() if record is None}
    there = {
        s: record
        for s, record in found.items()
        if record is not None and (s.part in asked[s.bank] or (s.bank, s.part) not in lacking)
    }
    missing = tuple(s for s, record in found.items() if record is None and s.part in asked[s.bank])
    return Plan(origin, kept, there, missing, {**folder.made_by, **origin.made_by})


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
    parts = {shard.part for shard in plan.committed}
    manifest = Manifest(
        identity=plan.origin.identity,
        n_rows=plan.origin.n_rows,
        classes=plan.origin.classes,
        banks=dict(plan.banks),
        shards=tuple(plan.committed.values()),
        rows=rows,
        bytes=size,
        versions=dict(versions),
        feature_precision=plan.origin.feature_precision,
        made_by={name: by for name, by in plan.made_by.items() if name in parts},
    )
    sizes = place.sizes()
    if MANIFEST in sizes:
        found, sha256 = read_manifest(place)
        is_kept = sizes.get(kept_manifest(sha256)) == sizes[MANIFEST]
        if is_kept and found == manifest.with_overrides(versions=found.versions):
            return sha256
    return write_manifest(place, manifest)


def all_shards(origin: Origin, banks: Mapping[str, BankConfig]) -> Iterator[Shard]:
    """Every shard of a complete cache of these banks, those of features behind the logits of their rows."""
    for name, bank in banks.items():
        for view in range(bank.views):
            for shard in shards_of(name, view, n_rows=origin.n_rows, rows_per_shard=origin.rows_per_shard):
                yield shard
                for part in origin.features.get(name, ()):
                    yield from _beside(shard, part, origin)
    if CLASSIFIER in origin.features.get(TEACHER, ()):
        yield Shard(bank=TEACHER, view=0, index=0, first=0, rows=len(origin.classes), part=CLASSIFIER)


def shards_of(bank: str, view: int, *, n_rows: int, rows_per_shard: int) -> Iterator[Shard]:
    """The shards of the logits of a view of a bank, in the order of their rows."""
    for index, first in enumerate(range(0, n_rows, rows_per_shard)):
        rows = min(rows_per_shard, n_rows - first)
        yield Shard(bank=bank, view=view, index=index, first=first, rows=rows)


def _beside(logits: Shard, part: str, origin: Origin) -> Iterator[Shard]:
    """The shards of a feature of the rows of a shard of logits: one, or several where it is a whole map."""
    rows = min(origin.rows_per_map, origin.rows_per_shard) if is_whole_map(part) else origin.rows_per_shard
    index = logits.index * math.ceil(origin.rows_per_shard / rows)
    for number, first in enumerate(range(0, logits.rows, rows)):
        yield Shard(
            bank=logits.bank,
            view=logits.view,
            index=index + number,
            first=logits.first + first,
            rows=min(rows, logits.rows - first),
            part=part,
        )


def together(shards: Iterable[Shard]) -> list[tuple[Shard, ...]]:
    """Shards in groups of common rows of the same view: one pass of the teacher gives all parts of them."""
    views: dict[tuple[str, int], list[Shard]] = {}
    for shard in shards:
        views.setdefault((shard.bank, shard.view), []).append(shard)
    groups: list[tuple[Shard, ...]] = []
    for found in views.values():
        group: list[Shard] = []
        end = 0
        for shard in sorted(found, key=lambda shard: shard.first):
            if group and shard.first >= end:
                groups.append(tuple(group))
                group = []
            group.append(shard)
            end = max(end, shard.first + shard.rows)
        groups.append(tuple(group))
    return groups


def pieces_of(group: Iterable[Shard]) -> list[tuple[range, tuple[Shard, ...]]]:
    """Ranges of rows, in order, with the shards that need all of each; where a shard begins, one does."""
    shards = tuple(group)
    bounds = sorted({bound for shard in shards for bound in (shard.first, shard.first + shard.rows)})
    pieces = []
    for first, end in pairwise(bounds):
        needing = tuple(s for s in shards if s.first <= first and end <= s.first + s.rows)
        if needing:
            pieces.append((range(first, end), needing))
    return pieces


def answers_of(shards: Iterable[Shard]) -> int:
    """Answers of the teacher that shards need; logits and features of a row are one."""
    asked = [shard for shard in shards if shard.part != CLASSIFIER]
    return sum(len(rows) for group in together(asked) for rows, _ in pieces_of(group))


def _larger(wanted: BankConfig | None, promised: BankConfig | None) -> BankConfig:
    both = [bank for bank in (wanted, promised) if bank is not None]
    return max(both, key=lambda bank: bank.views)


def _lacking(
    found: Mapping[Shard, ShardRecord | None], bank: str, asked: Mapping[str, tuple[str, ...]]
) -> set[int]:
    """The views of a bank that lack some of a feature that is asked for."""
    features = set(asked[bank]) - {LOGITS}
    return {s.view for s, record in found.items() if record is None and s.bank == bank and s.part in features}


def _covered(bank: BankConfig, wanted: BankConfig | None, lacking: set[int]) -> BankConfig:
    """A bank without views that nobody asks for now, from the first on that lacks something."""
    least = wanted.views if wanted is not None else 0
    views = min((view for view in lacking if view >= least), default=bank.views)
    return bank if views == bank.views else bank.with_overrides(views=views)


def _valid_record(
    place: Place, shard: Shard, origin: Origin, sizes: Mapping[str, int], *, is_asked: bool
) -> ShardRecord | None:
    """The commit record of a shard that is there; one that cannot be read is an error if it is asked for."""
    if shard.commit not in sizes:
        return None
    record = None
    with suppress(*(() if is_asked else (CacheError,))):
        record = read_record(place, shard.commit, ShardRecord)
    if record is None or (record.shard, record.fingerprint) != (shard, origin.fingerprint_of(shard)):
        return None
    return record if sizes.get(record.file) == record.bytes else None
