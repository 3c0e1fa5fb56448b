"""Which column of a table holds the images, which the labels, and a label as text."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from trainables.errors import DataError
from trainables.foreign_files import in_a_line, in_characters

IMAGE_NAMES: Final = ("image", "img", "image_path", "picture")
LABEL_NAMES: Final = ("label", "labels", "class", "class_name", "category", "target")
_NAMED: Final = 10


def chosen_column(
    there: Sequence[str], usual: Sequence[str], wanted: str | None, where: str, what: str, field: str
) -> str:
    """The column that the configuration names, or the only one with a usual name.

    Raises:
        DataError: there is none, or there are several.
    """
    named = ", ".join(map(in_characters, there[:_NAMED])) or "none"
    if wanted is not None:
        if wanted not in there:
            raise DataError(f"{where} has no column {wanted!r} (`{field}`); there are: {named}")
        return wanted
    found = [name for name in there if name.lower() in usual]
    if len(found) == 1:
        return found[0]
    problem = "several columns that may hold" if found else "no column that is named as"
    raise DataError(
        f"{where} has {problem} the {what} (usual names: {', '.join(usual)}); there are: {named}; say "
        f"which with `{field}`"
    )


def _is_writable(text: str) -> bool:
    try:
        return "\0" not in text and bool(os.fsencode(text))
    except UnicodeEncodeError:  # JSON can write halves of characters
        return False


def label_text(value: object, where: str) -> str:
    """A label as the name of a class.

    Raises:
        DataError: it is neither text nor a whole number.
    """
    text = str(value) if isinstance(value, int) else value.strip() if isinstance(value, str) else ""
    if not text or not _is_writable(text):
        raise DataError(f"{where} is {in_a_line(repr(value))}; write the class as a name or a whole number")
    return text
