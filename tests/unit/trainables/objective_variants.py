"""Every objective as tests try it, and students that give each what it asks for."""

from __future__ import annotations

import torch
from torch import nn

from trainables.config import (
    OBJECTIVE_CONFIGS,
    CrldConfig,
    KdConfig,
    MlldConfig,
    ModelConfig,
    ModelName,
    Need,
    ObjectiveBase,
)
from trainables.config.objective_base import EMBEDDING
from trainables.config.objectives import CtkdConfig, DeitConfig
from trainables.config.representation.inputs import DISTILLATION_LOGITS
from trainables.models import build_model
from trainables.models.cosine import with_cosine_head
from trainables.models.small import convnet

VARIANTS: dict[str, ObjectiveBase] = {
    **{name: config() for name, config in OBJECTIVE_CONFIGS.items()},
    "lskd": KdConfig(standardise=True, temperature=2.0, kd_weight=9.0),
    "mlld per sample": MlldConfig(mask="per_sample", standardise=True),
    **{f"crld {base}": CrldConfig(base=base, weak_threshold=0.4) for base in ("dkd", "dist", "mlld")},
    "ctkd dkd": CtkdConfig(base="dkd"),
    "deit soft": DeitConfig(form="soft", ce_weight=0.9, distillation_weight=0.1),
}


def averaging_student() -> nn.Module:
    """A network with a last feature map, which Zipf's label smoothing asks for."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 3),
        )


def staged_network(width: int = 4, *, seed: int = 0, n_classes: int = 3) -> nn.Module:
    """A network with three sizes of maps: of a grey 8x8 image 8x8, 4x4 and 2x2 places."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return convnet(n_classes, 1, width)


def student_with_distillation_token(n_classes: int = 3, **sizes: int) -> nn.Module:
    """A vision transformer for grey 8x8 images, with two heads whose mean it answers with."""
    arguments = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2, **sizes}
    name = "deit_tiny_distilled_patch16_224"
    config = ModelConfig(name=ModelName.TIMM, variant=name, arguments=arguments)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_model(config, n_classes=n_classes, in_channels=1)


def student_for(objective: ObjectiveBase) -> nn.Module:
    """A cosine head, a distillation token, or several stages, where the objective asks for them."""
    if Need.COSINE_HEAD in objective.needed:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return with_cosine_head(averaging_student(), 256, 3)
    if DISTILLATION_LOGITS in objective.student_features:
        return student_with_distillation_token()
    if set(objective.student_features) - {EMBEDDING}:
        return staged_network()
    return averaging_student()
