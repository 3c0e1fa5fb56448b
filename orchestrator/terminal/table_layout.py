"""How a table is laid out in lines of plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

NARROWEST: Final = 20
"""Characters that a value gets at least, however narrow the terminal."""


def column_widths(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> list[int]:
    """Characters of the longest cell of each column, its head included."""
    lines = [[str(cell) for cell in line] for line in (columns, *rows)]
    return [max(map(len, cells)) for cells in zip(*lines, strict=True)]


def blocks(columns: Sequence[str], rows: Sequence[Sequence[object]], width: int) -> Iterator[str]:
    """Lines of a table that is too wide: of each row its first cell, and below it `column  value`.

    Empty cells are left out; a value that is longer than its place goes on in the next line.
    """
    names = max(len(name) for name in columns[1:])
    for first, *cells in rows:
        yield str(first)
        for name, cell in zip(columns[1:], map(str, cells), strict=True):
            if not cell:
                continue
            before = f"  {name.ljust(names)}  "
            room = max(width - len(before), NARROWEST)
            for line in textwrap.wrap(cell, room, break_on_hyphens=False):
                yield before + line
                before = " " * len(before)
