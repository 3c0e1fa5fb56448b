"""What the options of a command change in an experiment file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Overrides:
    """What the command line changes; none leaves the file's word."""

    space: str | None = None
    """A shipped name, or a path relative to the working folder."""
    out: str | None = None
    trials: int | None = None
    finalists: int | None = None
    where: str | None = None


@dataclass(frozen=True)
class Changes:
    """The options as they were given."""

    space: str | None = None
    out: Path | None = None
    trials: int | None = None
    where: str | None = None
    finalists: int | None = None

    def overrides(self) -> Overrides:
        """The same for the loader."""
        out = str(self.out) if self.out else None
        return Overrides(
            space=self.space, out=out, trials=self.trials, where=self.where, finalists=self.finalists
        )

    def words(self) -> list[str]:
        """The options as they were written, to say or send them again."""
        given = {"--space": self.space, "--out": self.out, "--trials": self.trials, "--where": self.where}
        given |= {"--finalists": self.finalists}
        return [str(word) for name, value in given.items() if value is not None for word in (name, value)]
