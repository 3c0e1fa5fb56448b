"""Decisions that hang on a sample's id alone, so that adding samples never moves the others."""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

_GOLDEN_GAMMA: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2: Final = np.uint64(0x94D049BB133111EB)


def salt_of(purpose: str) -> int:
    """A 64-bit salt: the first 8 bytes, little-endian, of blake2b of the purpose's name."""
    return int.from_bytes(hashlib.blake2b(purpose.encode(), digest_size=8).digest(), "little")


def hashed_ids(ids: NDArray[np.int64], *, salt: int) -> NDArray[np.uint64]:
    """Output number `id` of the SplitMix64 generator seeded with `salt` (Steele, Lea and Flood, 2014).

    The map is one to one for each salt: two ids never share a hash.
    """
    # Array operations wrap around modulo 2^64, which is what the generator asks for.
    state = (ids.astype(np.uint64) + np.uint64(1)) * _GOLDEN_GAMMA + np.uint64(salt)
    state = (state ^ (state >> np.uint64(30))) * _MIX_1
    state = (state ^ (state >> np.uint64(27))) * _MIX_2
    return state ^ (state >> np.uint64(31))


def falls_below(ids: NDArray[np.int64], fraction: float, *, salt: int) -> NDArray[np.bool_]:
    """True where the hash, read as a number in [0, 1), is below `fraction`."""
    unit = (hashed_ids(ids, salt=salt) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return unit < fraction


def first_by_hash(ids: NDArray[np.int64], count: int, *, salt: int) -> NDArray[np.int64]:
    """The `count` ids with the smallest hashes (all when there are fewer), ascending."""
    order = np.argsort(hashed_ids(ids, salt=salt), kind="stable")
    return np.sort(ids[order[:count]])
