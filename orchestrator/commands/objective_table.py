"""The objectives in words: what each asks for, where it is from, and its paper's defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from trainables.config import OBJECTIVE_CONFIGS, Need, ObjectiveBase

NEED_WORDS: Final[Mapping[Need, str]] = MappingProxyType(
    {
        Need.ALL_CLASSES: "of all classes",
        Need.UNSHIFTED: "unshifted",
        Need.TEACHER_EMBEDDING: "teacher's embedding",
        Need.STUDENT_EMBEDDING: "student with a cosine head",
        Need.DENSE_LOGITS: "student's last feature map",
        Need.ROWS: "a table by sample",
        Need.ATTACK: "adversarial images",
        Need.ONLINE_TEACHER: "online teacher",
    }
)
COLUMNS: Final = ("name", "needs", "student sees", "paper", "defaults")


@dataclass(frozen=True)
class ObjectiveFacts:
    """One objective, at its defaults."""

    name: str
    what: str
    needs: tuple[str, ...]
    """At the defaults, and what some other hyper-parameters ask for."""
    student_banks: tuple[str, ...]
    teacher_banks: tuple[str, ...]
    paper: str
    defaults: dict[str, Any]

    def row(self) -> tuple[str, ...]:
        """The cells under `COLUMNS`."""
        defaults = ", ".join(f"{name} {_shown(value)}" for name, value in self.defaults.items())
        return (self.name, ", ".join(self.needs), ", ".join(self.student_banks), self.paper, defaults or "-")


def objective_facts() -> list[ObjectiveFacts]:
    """All objectives that may stand in a search space, in the order of their table."""
    return [_facts(name, config) for name, config in OBJECTIVE_CONFIGS.items()]


def _facts(name: str, config: type[ObjectiveBase]) -> ObjectiveFacts:
    defaults = {key: value for key, value in config().plain().items() if key != "name"}
    what = (config.__doc__ or "").splitlines()[0]
    return ObjectiveFacts(
        name, what, _needs(config), config.banks, config.teacher_banks, config.paper, defaults
    )


def _needs(config: type[ObjectiveBase]) -> tuple[str, ...]:
    needed = config().needed
    words = [
        NEED_WORDS[need] if need in needed else f"{NEED_WORDS[need]} with some options"
        for need in Need
        if need in config.needs
    ]
    if not config.teacher_banks:
        return ("no teacher", *words)
    return (f"teacher's logits ({', '.join(config.teacher_banks)})", *words)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
