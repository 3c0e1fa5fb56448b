"""The objectives by name. Bounds and papers' defaults stand in the modules imported here.

The maths: trainables/objectives.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import Field

from trainables.config.label_objectives import CeConfig, LsConfig
from trainables.config.logit_objectives import DistConfig, DkdConfig, KdConfig
from trainables.config.objective_base import Need, ObjectiveBase
from trainables.config.view_objectives import (
    CrldBase,
    CrldConfig,
    Gate,
    MlldConfig,
    MlldMask,
    MlldTemperatures,
)

ObjectiveConfig = Annotated[
    CeConfig | LsConfig | KdConfig | DkdConfig | DistConfig | MlldConfig | CrldConfig,
    Field(discriminator="name"),
]

OBJECTIVE_CONFIGS: Final[Mapping[str, type[ObjectiveBase]]] = MappingProxyType(
    {
        "ce": CeConfig,
        "ls": LsConfig,
        "kd": KdConfig,
        "dkd": DkdConfig,
        "dist": DistConfig,
        "mlld": MlldConfig,
        "crld": CrldConfig,
    }
)

__all__ = [
    "OBJECTIVE_CONFIGS",
    "CeConfig",
    "CrldBase",
    "CrldConfig",
    "DistConfig",
    "DkdConfig",
    "Gate",
    "KdConfig",
    "LsConfig",
    "MlldConfig",
    "MlldMask",
    "MlldTemperatures",
    "Need",
    "ObjectiveBase",
    "ObjectiveConfig",
]
