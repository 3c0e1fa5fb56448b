"""Names of students that follow from what they train; a name is made here and never taken apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from trainables.config import digest_of

ID_DIGITS: Final = 12  # 8 would let two of 10,000 students share an id once in a hundred searches


def control_name(search: str, spec: Mapping[str, Any]) -> str:
    """The name that all seeds of a control share; `spec` is its TrialSpec as plain data.

    Raises:
        KeyError: the specification lacks objective, student or training.
    """
    content = [search, spec["objective"], spec["student"], spec["training"]]
    return f"{spec['objective'].get('name', 'ce')}-{digest_of(content)[:ID_DIGITS]}"
