"""Libraries that only some runs need: imported where they are used, and named where they are missing."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from types import ModuleType
from typing import Any, Final

from trainables.errors import ConfigError
from trainables.foreign_files import reason_of

_SHOWN: Final = 12


def extra(name: str) -> ModuleType:
    """The library of this name, which is an extra of ours.

    Raises:
        ConfigError: it is not installed, or cannot be imported; it says what to install.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        why = (
            "" if isinstance(error, ModuleNotFoundError) and error.name == name else f" ({reason_of(error)})"
        )
        raise ConfigError(
            f"`name: {name}` needs the package {name}, which cannot be imported here{why}: "
            f"pip install 'stillhouse[{name}]', on every node"
        ) from error


def nearest(name: str, known: Collection[str]) -> str:
    """The names that are nearest to one that is not among those known, for an error."""
    return ", ".join(near(name, known)) or "none"


def near(name: str, known: Collection[str]) -> list[str]:
    """The names that are nearest to one that is not among those known; none where all are far."""
    return get_close_matches(name, known, n=3, cutoff=0.4)


def shown(names: Collection[str]) -> str:
    """The first of these names, and how many more there are."""
    listed = sorted(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return f"{', '.join(listed[:_SHOWN])}{more}"


def refuse_ours(arguments: Mapping[str, Any], ours: Collection[str], network: str) -> None:
    """Refuse arguments that Stillhouse itself gives a library's builder.

    Raises:
        ConfigError: there are some.
    """
    found = sorted(set(ours) & arguments.keys())
    if found:
        raise ConfigError(
            f"`arguments` of {network} may not hold {', '.join(found)}: the data set gives the number of "
            "classes and of channels, and weights come from a checkpoint"
        )
