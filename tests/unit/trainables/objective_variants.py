"""Every objective as tests try it, and students that give each what it asks for."""

from __future__ import annotations

from collections.abc import Iterable

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
from trainables.config.objective_base import EMBEDDING, ROTATED, Preparation
from trainables.config.objectives import (
    AtConfig,
    CtkdConfig,
    DeitConfig,
    DmlConfig,
    FitnetConfig,
    MclConfig,
    MixskdConfig,
    SpConfig,
    TatConfig,
)
from trainables.config.representation.inputs import DISTILLATION_LOGITS
from trainables.models import build_model
from trainables.models.cosine import with_cosine_head
from trainables.teacher.prepared import extended
from trainables.training.course import Trained

TEACHER_WIDTH = 32
"""Numbers in the embedding of `variants_teacher`."""
TAUGHT_BANKS = ("weak", "strong", *ROTATED[1:])
VARIANTS: dict[str, ObjectiveBase] = {
    **{name: config() for name, config in OBJECTIVE_CONFIGS.items()},
    "lskd": KdConfig(standardise=True, temperature=2.0, kd_weight=9.0),
    "mlld per sample": MlldConfig(mask="per_sample", standardise=True),
    **{f"crld {base}": CrldConfig(base=base, weak_threshold=0.4) for base in ("dkd", "dist", "mlld")},
    "ctkd dkd": CtkdConfig(base="dkd"),
    "sp on maps": SpConfig(level="map", kd_weight=1.0),
    "at by length": AtConfig(form="norm", at_weight=10.0, stages="2,3"),
    "deit soft": DeitConfig(form="soft", ce_weight=0.9, distillation_weight=0.1),
    "fitnet in two steps": FitnetConfig(hint="embedding", hint_epochs=1, kd_weight=1.0),
    "dml of three by their mean": DmlConfig(peers=3, target="mean", temperature=2.0),
    "mixskd as its script": MixskdConfig(mode="script", disc_weight=1.0),
    "tat by teacher": TatConfig(orientation="teacher_row", theta="conv", kd_weight=0.5),
    "mcl with banks": MclConfig(form="bank", peers=3, kd_weight=1.0),
    "mcl in layers": MclConfig(layers=True),
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
    """A residual network of three stages: maps of a grey 8x8 image have 8x8, 4x4 and 2x2 places."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_model(
            ModelConfig(name=ModelName.RESNET8, width=width), n_classes=n_classes, in_channels=1
        )


def variants_teacher(seed: int = 9) -> nn.Module:
    """A teacher with all that the variants ask for: stages, an embedding of 32, and prepared parts."""
    teacher = staged_network(TEACHER_WIDTH // 4, seed=seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        kinds = (Preparation.SS_HEAD, Preparation.BRANCHES)
        return extended(teacher, kinds, n_classes=3, input_shape=(1, 8, 8)).eval()


def taught_features(objectives: Iterable[ObjectiveBase] = ()) -> dict[str, tuple[str, ...]]:
    """What objectives, all variants by default, ask of a teacher that is cached: features by bank."""
    asked = [
        (bank, feature)
        for objective in objectives or VARIANTS.values()
        for bank in objective.teacher_banks
        for feature in objective.teacher_features
    ]
    banks = {bank: tuple(dict.fromkeys(name for of, name in asked if of == bank)) for bank, _ in asked}
    return {**banks, "teacher": ("classifier",)}


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
            return with_cosine_head(averaging_student(), TEACHER_WIDTH, 3)
    if DISTILLATION_LOGITS in objective.student_features:
        return student_with_distillation_token()
    if set(objective.student_features) - {EMBEDDING}:
        return staged_network()
    return averaging_student()


def peers_for(objective: ObjectiveBase) -> tuple[Trained, ...]:
    """Networks beside the student of `student_for`, of its shape and with weights of their own."""
    return tuple(
        Trained(reseeded(student_for(objective), number)) for number in range(1, objective.n_networks)
    )


def reseeded(network: nn.Module, seed: int) -> nn.Module:
    """A network with other random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for part in network.modules():
            reset = getattr(part, "reset_parameters", None)
            if callable(reset):
                reset()
    return network
