"""The objectives in words: what each asks for, where it is from, and its paper's defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from trainables.config import OBJECTIVE_CONFIGS, Need, ObjectiveBase
from trainables.config.objective_base import LabelUse

NEED_WORDS: Final[Mapping[Need, str]] = MappingProxyType(
    {
        Need.ALL_CLASSES: "of all classes",
        Need.UNSHIFTED: "unshifted",
        Need.COSINE_HEAD: "student with a cosine head",
        Need.TEACHER_CLASSIFIER: "teacher's classifier",
        Need.IMAGES: "the student's images",
        Need.DENSE_LOGITS: "student's last feature map",
        Need.ROWS: "a table by sample",
        Need.ATTACK: "adversarial images",
        Need.ONLINE_TEACHER: "online teacher",
    }
)
UNLABELLED_WORDS: Final[Mapping[LabelUse, str]] = MappingProxyType(
    {
        LabelUse.NONE: "yes",
        LabelUse.TARGET_CLASS: "by the teacher's class",
        LabelUse.ATTACK: "no",
    }
)
"""Whether an objective learns from images without labels; by the teacher's class where that is allowed."""
COLUMNS: Final = ("name", "needs", "student sees", "unlabelled", "paper", "defaults")


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
    unlabelled: str
    """Whether it learns from images without labels, at the defaults."""

    def row(self) -> tuple[str, ...]:
        """The cells under `COLUMNS`."""
        defaults = ", ".join(f"{name} {_shown(value)}" for name, value in self.defaults.items())
        sees = ", ".join(self.student_banks)
        return (self.name, ", ".join(self.needs), sees, self.unlabelled, self.paper, defaults or "-")


def objective_facts() -> list[ObjectiveFacts]:
    """All objectives that may stand in a search space, in the order of their table."""
    return [_facts(name, config) for name, config in OBJECTIVE_CONFIGS.items()]


def _facts(name: str, config: type[ObjectiveBase]) -> ObjectiveFacts:
    defaults = {key: value for key, value in config().plain().items() if key != "name"}
    what = (config.__doc__ or "").splitlines()[0]
    return ObjectiveFacts(
        name,
        what,
        _needs(config),
        config.banks,
        config.teacher_banks,
        config.paper,
        defaults,
        UNLABELLED_WORDS[config().uses_label] if config.teacher_banks else "no",
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
