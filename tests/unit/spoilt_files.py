"""Damaged copies of a good file: bytes flipped, cut off or put in, the same ones on every run."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

from trainables.errors import StillhouseError

COUNT = 500
MAX_CHARACTERS = 600
"""Of a message."""


def spoilt(good: bytes, count: int = COUNT, *, flat: float = 0.5) -> Iterator[bytes]:
    """Copies of which a third are flipped, a third cut, a third have bytes overwritten by others of theirs.

    The share `flat` of the places lies in the first and last 200 bytes, where formats keep their structure.
    """
    drawn = random.Random(len(good))

    def place() -> int:
        ends = [*range(min(200, len(good))), *range(max(0, len(good) - 200), len(good))]
        return drawn.choice(ends) if drawn.random() < flat else drawn.randrange(len(good))

    for number in range(count):
        content = bytearray(good)
        match number % 3:
            case 0:
                for _ in range(drawn.randint(1, 4)):
                    content[place()] ^= 1 << drawn.randrange(8)
            case 1:
                del content[place() :]
            case _:
                first, other = place(), place()
                part = good[other : other + drawn.randint(1, 8)]
                content[first : first + len(part)] = part
        yield bytes(content)


def refusals(path: Path, contents: Iterator[bytes], read: Callable[[Path], object]) -> int:
    """How many of these contents a reader refuses, each in one short line."""
    refused = 0
    for content in contents:
        path.write_bytes(content)
        try:
            read(path)
        except StillhouseError as error:
            text = str(error).replace(str(path.parent), "")
            assert "\n" not in text, text
            assert len(text) <= MAX_CHARACTERS, text
            refused += 1
    return refused
