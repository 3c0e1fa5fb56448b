"""Seeds that derive from what they are for, so that no two purposes share a generator."""

from __future__ import annotations

import hashlib


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2**63) from named parts, such as (experiment seed, "order", epoch).

    The same parts give the same seed in any process, on any machine.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1
