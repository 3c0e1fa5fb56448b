"""The objectives by name. Bounds and papers' defaults stand in the modules imported here.

The maths: trainables/objectives.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import Field

from trainables.config.embedding_objectives import CbdConfig
from trainables.config.label_objectives import CeConfig, Growth, LsConfig, PskdConfig, ZipfConfig
from trainables.config.logit_objectives import (
    AektConfig,
    AektForm,
    CkdConfig,
    ClkdConfig,
    Covariance,
    CtkdBase,
    CtkdConfig,
    DistConfig,
    DkdConfig,
    KdConfig,
)
from trainables.config.mutual.contrast import KdHearers, MclConfig, MclForm
from trainables.config.mutual.fusion import MfefConfig
from trainables.config.mutual.mixing import MixskdConfig, MixskdMode
from trainables.config.mutual.peers import DmlConfig, PeersTarget, PeersWeight
from trainables.config.objective_base import Attack, Need, ObjectiveBase
from trainables.config.representation.contrast import CrdConfig
from trainables.config.representation.inputs import DeitConfig, DistillationForm, PixelConfig
from trainables.config.representation.maps import FitnetConfig, ReviewkdConfig, TatConfig
from trainables.config.representation.regression import SimregConfig, SrdConfig, ThkdConfig
from trainables.config.representation.relations import (
    AtConfig,
    AtForm,
    Compared,
    PktConfig,
    RkdConfig,
    SpConfig,
)
from trainables.config.representation.rotations import HsakdConfig, MlkdConfig, SskdConfig
from trainables.config.representation.tokens import ImageRow, TintemConfig, TintemLevel
from trainables.config.robust_objectives import AkdConfig, AttackTarget, TeacherInput
from trainables.config.schedules import TemperatureSchedule
from trainables.config.view_objectives import (
    CrldBase,
    CrldConfig,
    Gate,
    MlldConfig,
    MlldMask,
    MlldTemperatures,
)

ObjectiveConfig = Annotated[
    CeConfig
    | LsConfig
    | ZipfConfig
    | PskdConfig
    | KdConfig
    | DkdConfig
    | DistConfig
    | CtkdConfig
    | AektConfig
    | ClkdConfig
    | CkdConfig
    | CbdConfig
    | AkdConfig
    | MlldConfig
    | CrldConfig
    | SpConfig
    | RkdConfig
    | PktConfig
    | AtConfig
    | CrdConfig
    | SimregConfig
    | SrdConfig
    | ThkdConfig
    | FitnetConfig
    | ReviewkdConfig
    | TatConfig
    | TintemConfig
    | PixelConfig
    | DeitConfig
    | MlkdConfig
    | SskdConfig
    | HsakdConfig
    | DmlConfig
    | MclConfig
    | MfefConfig
    | MixskdConfig,
    Field(discriminator="name"),
]

OBJECTIVE_CONFIGS: Final[Mapping[str, type[ObjectiveBase]]] = MappingProxyType(
    {
        "ce": CeConfig,
        "ls": LsConfig,
        "zipf": ZipfConfig,
        "pskd": PskdConfig,
        "kd": KdConfig,
        "dkd": DkdConfig,
        "dist": DistConfig,
        "ctkd": CtkdConfig,
        "aekt": AektConfig,
        "clkd": ClkdConfig,
        "ckd": CkdConfig,
        "cbd": CbdConfig,
        "akd": AkdConfig,
        "mlld": MlldConfig,
        "crld": CrldConfig,
        "sp": SpConfig,
        "rkd": RkdConfig,
        "pkt": PktConfig,
        "at": AtConfig,
        "crd": CrdConfig,
        "simreg": SimregConfig,
        "srd": SrdConfig,
        "thkd": ThkdConfig,
        "fitnet": FitnetConfig,
        "reviewkd": ReviewkdConfig,
        "tat": TatConfig,
        "tintem": TintemConfig,
        "pixel": PixelConfig,
        "deit": DeitConfig,
        "mlkd": MlkdConfig,
        "sskd": SskdConfig,
        "hsakd": HsakdConfig,
        "dml": DmlConfig,
        "mcl": MclConfig,
        "mfef": MfefConfig,
        "mixskd": MixskdConfig,
    }
)

__all__ = [
    "OBJECTIVE_CONFIGS",
    "AektConfig",
    "AektForm",
    "AkdConfig",
    "AtConfig",
    "AtForm",
    "Attack",
    "AttackTarget",
    "CbdConfig",
    "CeConfig",
    "CkdConfig",
    "ClkdConfig",
    "Compared",
    "Covariance",
    "CrdConfig",
    "CrldBase",
    "CrldConfig",
    "CtkdBase",
    "CtkdConfig",
    "DeitConfig",
    "DistConfig",
    "DistillationForm",
    "DkdConfig",
    "DmlConfig",
    "FitnetConfig",
    "Gate",
    "Growth",
    "HsakdConfig",
    "ImageRow",
    "KdConfig",
    "KdHearers",
    "LsConfig",
    "MclConfig",
    "MclForm",
    "MfefConfig",
    "MixskdConfig",
    "MixskdMode",
    "MlkdConfig",
    "MlldConfig",
    "MlldMask",
    "MlldTemperatures",
    "Need",
    "ObjectiveBase",
    "ObjectiveConfig",
    "PeersTarget",
    "PeersWeight",
    "PixelConfig",
    "PktConfig",
    "PskdConfig",
    "ReviewkdConfig",
    "RkdConfig",
    "SimregConfig",
    "SpConfig",
    "SrdConfig",
    "SskdConfig",
    "TatConfig",
    "TeacherInput",
    "TemperatureSchedule",
    "ThkdConfig",
    "TintemConfig",
    "TintemLevel",
    "ZipfConfig",
]
