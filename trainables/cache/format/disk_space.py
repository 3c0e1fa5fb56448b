"""How many bytes a cache will take, and whether they fit where it lies; asked before anything runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from trainables.cache.format.logit_encoding import FEATURE_DTYPES, encode_logits
from trainables.cache.format.parquet import ShardRows, encode_shard
from trainables.cache.format.planning import Plan
from trainables.cache.format.records import Origin, Shard
from trainables.cache.format.storage import Place
from trainables.config.cache import CLASSIFIER, LOGITS, FeaturePrecision
from trainables.errors import CacheError

SAMPLE_ROWS: Final = 256
ID_BYTES: Final = 8
Shapes = Mapping[str, tuple[int, ...]]
NO_SHAPES: Final[Shapes] = MappingProxyType({})
RESERVE: Final = 0.02
"""Of what is needed, for row groups, commit records, the manifest, and the file system's own blocks."""


def expected_bytes(origin: Origin, shards: Iterable[Shard], shapes: Shapes = NO_SHAPES) -> int:
    """Bytes that these shards will take on disk.

    Two small shards are encoded as they would be written, and tell what a file costs and what a row costs.
    `shapes` are those of a row of each feature; those of unknown shape count as nothing.
    """
    first, second = (_encoded_bytes(origin, rows) for rows in (SAMPLE_ROWS, 2 * SAMPLE_ROWS))
    per_row = (second - first) / SAMPLE_ROWS
    per_file = first - per_row * SAMPLE_ROWS
    total = 0.0
    for shard in shards:
        row = per_row if shard.part == LOGITS else feature_row_bytes(origin, shard.part, shapes)
        total += per_file + shard.rows * row
    return round(total)


def feature_row_bytes(origin: Origin, part: str, shapes: Shapes) -> int:
    """Bytes of one row of a feature; 0 where its shape is not known."""
    if part not in shapes:
        return 0
    precision = FeaturePrecision.FP32 if part == CLASSIFIER else origin.feature_precision
    return math.prod(shapes[part]) * np.dtype(FEATURE_DTYPES[precision]).itemsize + ID_BYTES


def require_disk_space(place: Place, plan: Plan, shapes: Shapes = NO_SHAPES) -> int:
    """The bytes that a build of what is missing will take; an object store takes any number.

    Raises:
        CacheError: the disk has less than that; it says how much, and what would take less.
    """
    needed = expected_bytes(plan.origin, plan.missing, shapes)
    free = place.free_bytes()
    if free is not None and needed * (1 + RESERVE) > free:
        raise CacheError(
            f"the teacher cache needs {bytes_in_words(needed)} more for {len(plan.missing)} files, and "
            f"{place.uri} has {bytes_in_words(free)} free; free some space, point cache.uri at a larger disk "
            "or at s3://, or ask for fewer views or a smaller cache.precision (now "
            f"{plan.origin.identity.dtype.value})"
        )
    return needed


def bytes_in_words(count: int) -> str:
    """A number of bytes as people read it, in powers of ten."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def _encoded_bytes(origin: Origin, n_rows: int) -> int:
    identity = origin.identity
    bank = next(iter(origin.recipes))
    logits_BC = np.random.default_rng(0).normal(size=(n_rows, identity.n_classes)).astype(np.float32)
    ids_B = np.arange(n_rows, dtype=np.int64)
    encoded = encode_logits(logits_BC, ids_B, identity.dtype, where="sample", top_k=identity.top_k)
    shard = Shard(bank=bank, view=0, index=0, first=0, rows=n_rows)
    data = encode_shard(
        shard,
        ShardRows(ids_B, ids_B % identity.n_classes, encoded),
        fingerprint="0" * 64,
        classes=origin.classes,
    )
    return int(data.size)
