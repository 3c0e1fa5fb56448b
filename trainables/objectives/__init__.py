"""Distillation objectives, one `nn.Module` and one file each: from a step's signals to named loss terms.

Formulas that several of them share are in `terms/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from trainables.config.objectives import ObjectiveBase
from trainables.errors import ConfigError
from trainables.objectives.aekt import AektObjective
from trainables.objectives.akd import AkdObjective
from trainables.objectives.cbd import CbdObjective
from trainables.objectives.ce import CeObjective
from trainables.objectives.ckd import CkdObjective
from trainables.objectives.clkd import ClkdObjective
from trainables.objectives.crld import CrldObjective
from trainables.objectives.ctkd import CtkdObjective
from trainables.objectives.dist import DistObjective
from trainables.objectives.dkd import DkdObjective
from trainables.objectives.kd import KdObjective
from trainables.objectives.ls import LsObjective
from trainables.objectives.mlld import MlldObjective
from trainables.objectives.mutual.dml import DmlObjective
from trainables.objectives.mutual.mcl import MclObjective
from trainables.objectives.mutual.mfef import MfefObjective
from trainables.objectives.mutual.mixskd import MixskdObjective
from trainables.objectives.pskd import PskdObjective
from trainables.objectives.representation.at import AtObjective
from trainables.objectives.representation.crd import CrdObjective
from trainables.objectives.representation.deit import DeitObjective
from trainables.objectives.representation.fitnet import FitnetObjective
from trainables.objectives.representation.hsakd import HsakdObjective
from trainables.objectives.representation.mlkd import MlkdObjective
from trainables.objectives.representation.pixel import PixelObjective
from trainables.objectives.representation.pkt import PktObjective
from trainables.objectives.representation.preparation import (
    PrepareBranchesObjective,
    PrepareHeadObjective,
)
from trainables.objectives.representation.reviewkd import ReviewkdObjective
from trainables.objectives.representation.rkd import RkdObjective
from trainables.objectives.representation.simreg import SimregObjective
from trainables.objectives.representation.sp import SpObjective
from trainables.objectives.representation.srd import SrdObjective
from trainables.objectives.representation.sskd import SskdObjective
from trainables.objectives.representation.tat import TatObjective
from trainables.objectives.representation.thkd import ThkdObjective
from trainables.objectives.representation.tintem import TintemObjective
from trainables.objectives.zipf import ZipfObjective
from trainables.signals import Objective, Setting

# Each class takes the configuration that OBJECTIVE_CONFIGS holds under the same name.
OBJECTIVES: Final[Mapping[str, type[Objective[Any]]]] = MappingProxyType(
    {
        "ce": CeObjective,
        "ls": LsObjective,
        "zipf": ZipfObjective,
        "kd": KdObjective,
        "dkd": DkdObjective,
        "dist": DistObjective,
        "aekt": AektObjective,
        "clkd": ClkdObjective,
        "ckd": CkdObjective,
        "cbd": CbdObjective,
        "akd": AkdObjective,
        "mlld": MlldObjective,
        "crld": CrldObjective,
        "ctkd": CtkdObjective,
        "pskd": PskdObjective,
        "sp": SpObjective,
        "rkd": RkdObjective,
        "pkt": PktObjective,
        "at": AtObjective,
        "crd": CrdObjective,
        "simreg": SimregObjective,
        "srd": SrdObjective,
        "thkd": ThkdObjective,
        "fitnet": FitnetObjective,
        "reviewkd": ReviewkdObjective,
        "tat": TatObjective,
        "tintem": TintemObjective,
        "pixel": PixelObjective,
        "deit": DeitObjective,
        "mlkd": MlkdObjective,
        "sskd": SskdObjective,
        "hsakd": HsakdObjective,
        "dml": DmlObjective,
        "mcl": MclObjective,
        "mfef": MfefObjective,
        "mixskd": MixskdObjective,
    }
)


# What prepares a teacher; no space can name it.
PREPARATIONS: Final[Mapping[str, type[Objective[Any]]]] = MappingProxyType(
    {"prepare_ss_head": PrepareHeadObjective, "prepare_branches": PrepareBranchesObjective}
)


def build_objective(config: ObjectiveBase, setting: Setting | None = None) -> Objective[Any]:
    """The objective that the configuration describes; the setting is for those with a state of their own.

    Raises:
        ConfigError: no objective has the configuration's name.
        ValueError: it has a state of its own, and there is no setting.
    """
    name = getattr(config, "name", None)
    builder = {**PREPARATIONS, **OBJECTIVES}.get(name) if isinstance(name, str) else None
    if builder is None:
        known = ", ".join(sorted(OBJECTIVES))
        raise ConfigError(
            f"unknown objective {name!r} ({type(config).__name__}); known: {known}; "
            "add a new one to OBJECTIVES in trainables/objectives/__init__.py"
        )
    return builder(config, setting)


__all__ = [
    "OBJECTIVES",
    "AektObjective",
    "AkdObjective",
    "AtObjective",
    "CbdObjective",
    "CeObjective",
    "CkdObjective",
    "ClkdObjective",
    "CrdObjective",
    "CrldObjective",
    "CtkdObjective",
    "DeitObjective",
    "DistObjective",
    "DkdObjective",
    "DmlObjective",
    "FitnetObjective",
    "HsakdObjective",
    "KdObjective",
    "LsObjective",
    "MclObjective",
    "MfefObjective",
    "MixskdObjective",
    "MlkdObjective",
    "MlldObjective",
    "PixelObjective",
    "PktObjective",
    "PskdObjective",
    "ReviewkdObjective",
    "RkdObjective",
    "SimregObjective",
    "SpObjective",
    "SrdObjective",
    "SskdObjective",
    "TatObjective",
    "ThkdObjective",
    "TintemObjective",
    "ZipfObjective",
    "build_objective",
]
