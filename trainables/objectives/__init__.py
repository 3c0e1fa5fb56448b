"""Distillation objectives: pure functions of a step's signals, one file each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from trainables.config.objectives import ObjectiveBase
from trainables.errors import ConfigError
from trainables.objectives.ce import CeObjective
from trainables.objectives.crld import CrldObjective
from trainables.objectives.dist import DistObjective
from trainables.objectives.dkd import DkdObjective
from trainables.objectives.kd import KdObjective
from trainables.objectives.ls import LsObjective
from trainables.objectives.mlld import MlldObjective
from trainables.signals import Objective

# Each class takes the configuration that OBJECTIVE_CONFIGS holds under the same name.
OBJECTIVES: Final[Mapping[str, Callable[[Any], Objective]]] = MappingProxyType(
    {
        "ce": CeObjective,
        "ls": LsObjective,
        "kd": KdObjective,
        "dkd": DkdObjective,
        "dist": DistObjective,
        "mlld": MlldObjective,
        "crld": CrldObjective,
    }
)


def build_objective(config: ObjectiveBase) -> Objective:
    """The objective that the configuration describes.

    Raises:
        ConfigError: no objective has the configuration's name.
    """
    name = getattr(config, "name", None)
    builder = OBJECTIVES.get(name) if isinstance(name, str) else None
    if builder is None:
        known = ", ".join(sorted(OBJECTIVES))
        raise ConfigError(
            f"unknown objective {name!r} ({type(config).__name__}); known: {known}; "
            "add a new one to OBJECTIVES in trainables/objectives/__init__.py"
        )
    return builder(config)


__all__ = [
    "OBJECTIVES",
    "CeObjective",
    "CrldObjective",
    "DistObjective",
    "DkdObjective",
    "KdObjective",
    "LsObjective",
    "MlldObjective",
    "build_objective",
]
