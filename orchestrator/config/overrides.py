"""What the command line changes in an experiment file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Overrides:
    """The options as they were given; where one is None, the file's value stays."""

    space: str | None = None
    """A shipped name, or a path relative to the working folder."""
    out: Path | None = None
    trials: int | None = None
    where: str | None = None
    finalists: int | None = None
    rank: str | None = None
    pareto: str | None = None
    int8_aware: bool = False
    """The champion is also exported as int8 that it was trained for."""

    def options(self) -> list[str]:
        """The options as they are written on a command line."""
        given = {"--space": self.space, "--out": self.out, "--trials": self.trials, "--where": self.where}
        given |= {"--finalists": self.finalists, "--rank": self.rank, "--pareto": self.pareto}
        given["--format"] = "onnx_int8_aware" if self.int8_aware else None
        return [str(word) for name, value in given.items() if value is not None for word in (name, value)]
