"""The boundary of readers of files that others wrote or a disk damaged: whatever they meet becomes one line.

Libraries raise some twenty kinds of errors for damaged files, and new ones with each version; a list of them
in each reader was never complete.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from trainables.errors import StillhouseError

MAX_CHARACTERS: Final = 200


class Unreadable(StillhouseError):
    """Why a file cannot be read, for readers that go on without it."""


def in_a_line(text: str) -> str:
    """What a file or an error says, in one short line that a terminal can show."""
    text = " ".join(text.split())
    text = text if len(text) <= MAX_CHARACTERS else f"{text[: MAX_CHARACTERS - 3]}..."
    return "".join(char if char.isprintable() else "?" for char in text)


def in_characters(name: str) -> str:
    """A file's name as text that any record and terminal can hold.

    Bytes that are no UTF-8 and characters that do not print, such as a line's end, stand as escapes.
    """
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def reason_of(error: Exception) -> str:
    """An error in one short line that a terminal can show."""
    text = in_a_line(str(error))
    if isinstance(error, OSError | ValueError) and text:
        return text
    return f"{type(error).__name__}{': ' if text else ''}{text}"


@contextmanager
def foreign_file(
    refused: Callable[[str], StillhouseError], reason: Callable[[Exception], str] = reason_of
) -> Iterator[None]:
    """Where a foreign file is read: what is raised here is raised as `refused`, which is given the reason.

    Errors of our own pass: their text is for people already.
    """
    try:
        yield
    except StillhouseError:
        raise
    except Exception as error:  # a damaged file can raise anything in the library that reads it
        raise refused(reason(error)) from error
