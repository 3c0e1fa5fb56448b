"""Names in MLflow's model registry: their one check, for the experiment file and for the registration."""

from __future__ import annotations

import re
from typing import Final

MAX_CHARACTERS: Final = 250
# MLflow takes no / and : and nothing that reads as another folder, and has no way to quote ' in a search.
_LEGAL: Final = re.compile(rf"(?!\s*$|\.$|\.\.)[^/:'\x00-\x1f\x7f]{{1,{MAX_CHARACTERS}}}")


def registrable(name: str) -> str:
    """The name, which the registry can hold.

    Raises:
        ValueError: it cannot.
    """
    if not _LEGAL.fullmatch(name):
        raise ValueError(
            f"the model registry cannot hold this name; allowed: 1 to {MAX_CHARACTERS} characters without "
            "/, : and ', not beginning with two dots"
        )
    return name
