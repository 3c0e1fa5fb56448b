"""Seeds and hashes by name: no two purposes share a generator, and a sample's hash hangs on its id alone."""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
"""The increment of SplitMix64."""


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2**63) from named parts, such as (experiment seed, "order", epoch).

    The same parts give the same seed in any process, on any machine.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def salt_of(purpose: str) -> int:
    """A 64-bit salt: the first 8 bytes, little-endian, of blake2b of the purpose's name."""
    return int.from_bytes(hashlib.blake2b(purpose.encode(), digest_size=8).digest(), "little")


def hash_of_name(name: bytes) -> int:
    """63 bits of blake2b of a name, where a sample is known by that."""
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little") >> 1


def hashed_ids(ids: NDArray[np.int64], *, salt: int) -> NDArray[np.uint64]:
    """Output number `id` of the SplitMix64 generator seeded with `salt` (Steele, Lea and Flood, 2014).

    The map is one to one for each salt: two ids never share a hash.
    """
    # Array operations wrap around modulo 2^64, which is what the generator asks for.
    return mix((ids.astype(np.uint64) + np.uint64(1)) * GOLDEN + np.uint64(salt))


def mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser: a one-to-one map of 64-bit words that spreads each bit over all."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def falls_below(ids: NDArray[np.int64], fraction: float, *, salt: int) -> NDArray[np.bool_]:
    """True where the hash, read as a number in [0, 1), is below `fraction`."""
    unit = (hashed_ids(ids, salt=salt) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return unit < fraction


def first_by_hash(ids: NDArray[np.int64], count: int, *, salt: int) -> NDArray[np.int64]:
    """The `count` ids with the smallest hashes (all when there are fewer), ascending."""
    order = np.argsort(hashed_ids(ids, salt=salt), kind="stable")
    return np.sort(ids[order[:count]])
