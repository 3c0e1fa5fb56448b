"""The base of every typed file: frozen, closed, checked at birth."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

Scalar = bool | int | float | str
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
FactoryPath = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]


class Config(BaseModel):
    """A frozen, closed record: unknown keys are refused, and a string is never turned into a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Self:
        """The record in plain data (YAML, JSON); strict, though lists become tuples and names enums.

        Raises:
            pydantic.ValidationError: naming each key that is unknown, missing or out of bounds.
        """
        return cls.model_validate_json(json.dumps(data, default=str), strict=True)

    def plain(self) -> dict[str, Any]:
        """Plain data that `from_plain` reads back."""
        return self.model_dump(mode="json")

    def with_overrides(self, **changes: Any) -> Self:
        """A copy with some fields replaced, checked again as a whole."""
        merged = {**self.plain(), **json.loads(json.dumps(changes, default=_as_plain))}
        return self.from_plain(merged)

    def digest(self) -> str:
        """Hex sha256 of the canonical JSON of this record."""
        return digest_of(self.plain())


def digest_of(value: object) -> str:
    """Hex sha256 of the canonical JSON of plain data: the order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _as_plain(value: object) -> object:
    if isinstance(value, Config):
        return value.plain()
    raise TypeError(f"{type(value).__name__} is not plain data")
