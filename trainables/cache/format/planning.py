"""Which shards a build has to compute: those that it asks for and that have no valid commit record."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from trainables.cache.format.identity import differences, plain_recipe, refuse
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

FOUND: Final = "what is found in the network"
PREPARED: Final = "prepared:"
"""Before the sha256 of what makes a feature, where the teacher was prepared with it."""


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
    merged = _merged(place, found, wanted)
    if merged != found:
        write_record(place, ORIGIN, merged)
    return _asked(merged, wanted)


def agreed_origin(place: Place, wanted: Origin) -> Origin:
    """What `claim_folder` would make of the folder; nothing is written.

    Raises:
        CacheError: as for `claim_folder`.
    """
    return _asked(_merged(place, read_record(place, ORIGIN, Origin), wanted), wanted)


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
    there, asked = _tapped(found), _tapped(wanted)
    if there and asked and found.feature_precision is not wanted.feature_precision:
        clauses.append(
            f"cache keeps features as {found.feature_precision.value}, this experiment asks for "
            f"{wanted.feature_precision.value}"
        )
    for name in sorted(there & asked):
        by, own = found.made_by.get(name, FOUND), wanted.made_by.get(name, FOUND)
        # A teacher that is not prepared yet is planned for; one that was prepared anew gets new files.
        if by != own and not by.startswith(PREPARED):
            clauses.append(f"cache keeps as {name} {by}, this experiment says {own}")
    refuse(place.uri, clauses)
    return found.with_overrides(
        recipes={**wanted.plain()["recipes"], **found.plain()["recipes"]},
        features=_features_of_both(found, wanted),
        made_by={
            **{name: path for name, path in wanted.made_by.items() if name not in there},
            **found.made_by,
            **{name: by for name, by in wanted.made_by.items() if by.startswith(PREPARED)},
        },
        feature_precision=(wanted if asked and not there else found).feature_precision,
        rows_per_map=(found if any(map(is_whole_map, there)) else wanted).rows_per_map,
    )


def _tapped(origin: Origin) -> set[str]:
    """The features by name; not the classifier, which is always kept in fp32, in one file."""
    return {name for names in origin.features.values() for name in names} - {CLASSIFIER}


def _asked(folder: Origin, wanted: Origin) -> Origin:
    """What a folder is for, with the features that are wanted alone."""
    names = _tapped(wanted)
    return folder.with_overrides(
        features=wanted.features,
        made_by={name: by for name, by in folder.made_by.items() if name in names},
    )


def plan_shards(place: Place, origin: Origin, banks: Mapping[str, BankConfig]) -> Plan:
    """Compare the folder with what `banks` need of logits and the features of `origin`.

    Banks and views that a manifest already promises stay part of the cache. A shard is there when its
    commit record bears the bank's fingerprint and its file has the recorded size. Other features that the
    folder keeps stay part of the cache where they are there for all of its views, and never are missing:
    those that lack some keep their files, for the experiment that asks for them.

    Raises:
        CacheError: a record that cannot be read.
    """
    sizes = place.sizes()
    promised = read_manifest(place)[0].banks if MANIFEST in sizes else {}
    banks = {name: _larger(banks.get(name), promised.get(name)) for name in sorted({*banks, *promised})}
    folder = read_record(place, ORIGIN, Origin) if ORIGIN in sizes else None
    if folder is None or folder.identity != origin.identity:
        folder = origin
    committed: dict[Shard, ShardRecord] = {}
    missing: list[Shard] = []
    lacking: set[tuple[str, str]] = set()
    for shard in all_shards(origin.with_overrides(features=_features_of_both(folder, origin)), banks):
        is_asked = shard.part == LOGITS or shard.part in origin.features.get(shard.bank, ())
        record = _valid_record(place, shard, origin if is_asked else folder, sizes, is_asked=is_asked)
        if record is not None:
            committed[shard] = record
        elif is_asked:
            missing.append(shard)
        else:
            lacking.add((shard.bank, shard.part))
    whole = {shard: record for shard, record in committed.items() if (shard.bank, shard.part) not in lacking}
    return Plan(origin, banks, whole, tuple(missing), {**folder.made_by, **origin.made_by})


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


def _features_of_both(folder: Origin, origin: Origin) -> dict[str, tuple[str, ...]]:
    """The features of each bank, those of the folder in its order first."""
    return {
        bank: tuple(dict.fromkeys((*folder.features.get(bank, ()), *origin.features.get(bank, ()))))
        for bank in (*folder.features, *origin.features)
    }


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
