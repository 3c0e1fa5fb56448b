"""Typed configuration of what is trained, and how, free of torch.

Bounds and defaults stand in the fields, so that a file is checked without loading any data.
"""

from trainables.config.base import Config, digest_of
from trainables.config.cache import BroughtValues, CacheConfig, CacheIdentity, Precision
from trainables.config.data import DataConfig, DataName, Normalisation, Split
from trainables.config.models import ModelConfig, ModelName, StudentConfig
from trainables.config.objectives import (
    OBJECTIVE_CONFIGS,
    CeConfig,
    CrldConfig,
    DistConfig,
    DkdConfig,
    Gate,
    KdConfig,
    LsConfig,
    MlldConfig,
    MlldMask,
    MlldTemperatures,
    Need,
    ObjectiveBase,
    ObjectiveConfig,
)
from trainables.config.teacher import (
    ClassRows,
    Combine,
    KeptEnsemble,
    KeptNetwork,
    KeptTeacher,
    TeacherSource,
)
from trainables.config.training import OptimizerName, ScheduleName, TrainingConfig, TrainingPrecision
from trainables.config.trial import Cost, Fork, OnlineSpec, Role, StartWeights, TrialSpec, WorkbenchSpec
from trainables.config.views import (
    MAX_VIEWS,
    BankConfig,
    CropFlipStep,
    CutoutStep,
    RandAugmentStep,
    Recipe,
    Step,
    ViewsConfig,
)

__all__ = [
    "MAX_VIEWS",
    "OBJECTIVE_CONFIGS",
    "BankConfig",
    "BroughtValues",
    "CacheConfig",
    "CacheIdentity",
    "CeConfig",
    "ClassRows",
    "Combine",
    "Config",
    "Cost",
    "CrldConfig",
    "CropFlipStep",
    "CutoutStep",
    "DataConfig",
    "DataName",
    "DistConfig",
    "DkdConfig",
    "Fork",
    "Gate",
    "KdConfig",
    "KeptEnsemble",
    "KeptNetwork",
    "KeptTeacher",
    "LsConfig",
    "MlldConfig",
    "MlldMask",
    "MlldTemperatures",
    "ModelConfig",
    "ModelName",
    "Need",
    "Normalisation",
    "ObjectiveBase",
    "ObjectiveConfig",
    "OnlineSpec",
    "OptimizerName",
    "Precision",
    "RandAugmentStep",
    "Recipe",
    "Role",
    "ScheduleName",
    "Split",
    "StartWeights",
    "Step",
    "StudentConfig",
    "TeacherSource",
    "TrainingConfig",
    "TrainingPrecision",
    "TrialSpec",
    "ViewsConfig",
    "WorkbenchSpec",
    "digest_of",
]
