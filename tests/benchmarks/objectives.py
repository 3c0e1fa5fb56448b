"""What a training step costs by objective, over cross-entropy alone, with the teacher's answers cached."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import torch
from torch import nn

from tests.benchmarks.figures import Bound, Figure
from tests.benchmarks.steps import (
    BATCH,
    CLASSES,
    CPU,
    SIDE,
    STEPS_KEPT,
    STUDENT,
    VIEW_SEED,
    cache_of,
    interleaved,
    network,
    random_data,
    recipe,
)
from tests.benchmarks.surroundings import surroundings
from trainables.config import (
    OBJECTIVE_CONFIGS,
    BankConfig,
    CeConfig,
    CropFlipStep,
    ModelConfig,
    ModelName,
    Need,
    ObjectiveBase,
    RandAugmentStep,
    ViewsConfig,
)
from trainables.config.objective_base import EMBEDDING
from trainables.config.representation.inputs import DISTILLATION_LOGITS
from trainables.models.embedding import classifier_of
from trainables.teacher.prepared import extended
from trainables.training.course import Course, Trained
from trainables.training.workbench import Workbench

# What a student's step costs does not depend on who answered: one whose pass over the data is short.
TEACHER: Final = ModelConfig(name=ModelName.RESNET8, width=32)
DISTILLED: Final = ModelConfig(
    name=ModelName.TIMM,
    variant="deit_tiny_distilled_patch16_224",
    arguments={"img_size": SIDE, "patch_size": 4, "embed_dim": 48, "depth": 2, "num_heads": 3},
)
CROP: Final = CropFlipStep(op="crop_flip", padding=2)
# One view each: rendered ahead, so that the figure is the objective's cost and not the pictures'.
VIEWS: Final = ViewsConfig(
    weak=BankConfig(recipe=(CROP,), views=1),
    strong=BankConfig(recipe=(CROP, RandAugmentStep(op="randaugment")), views=1),
)
# Of one view a sample, from the cache.
ON_FEATURES: Final = ("sp", "rkd", "pkt", "at", "crd", "simreg", "srd", "tintem", "thkd")
# Of four turns a sample, in one pass.
ON_TURNS: Final = {"mlkd": Bound(4.6), "sskd": Bound(4.6), "hsakd": Bound(8.0)}
# Two networks, or one with branches and mixed images beside its own.
WITHOUT_TEACHER: Final = {"dml": Bound(2.2), "mcl": Bound(2.4), "mfef": Bound(2.6), "mixskd": Bound(3.0)}
BOUNDS: Final[Mapping[str, Bound]] = MappingProxyType(
    {"crld": Bound(2.3), **{name: Bound(1.20) for name in ON_FEATURES}, **ON_TURNS, **WITHOUT_TEACHER}
)
VIEWS_IN_WORDS: Final = MappingProxyType({1: "one view", 2: "two views", 4: "four turns"})


def objective_step_over_ce(name: str, rounds: int = 12) -> Figure:
    """Median time of a step with this objective at its defaults, over that of a step with cross-entropy."""
    torch.set_num_threads(1)
    config, data = OBJECTIVE_CONFIGS[name](), random_data()
    teacher = teacher_for(config)
    student = plain = plain_student_for(config)
    if Need.COSINE_HEAD in config.needed:
        student = plain.with_overrides(cosine_head=classifier_of(teacher, CLASSES).in_features)
    models = {"ce": network(plain), name: network(student)}
    peers = tuple(Trained(network(student)) for _ in range(config.n_networks - 1))
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        banks = dict.fromkeys(("weak", "strong", *config.teacher_banks))
        cache = cache_of(Path(folder), data, teacher, VIEWS, features=kept_for(config), banks=tuple(banks))
        workbench = Workbench(data, VIEWS, view_seed=VIEW_SEED, device=CPU, cache=cache)
        courses = {
            "ce": lambda seed: Course(models["ce"], CeConfig(), recipe(), seed),
            name: lambda seed: Course(models[name], config, recipe(), seed, peers=peers),
        }
        times_s = interleaved(workbench, courses, rounds)
    ce_s, own_s = (statistics.median(times_s[one]) for one in ("ce", name))
    views = VIEWS_IN_WORDS[len(config.banks)]
    how = (
        f"median of {len(times_s[name])} training steps with {name} at its defaults ({views} a sample, "
        f"{1000 * own_s:.2f} ms), over as many with cross-entropy alone ({1000 * ce_s:.2f} ms), taken in "
        f"turns of {STEPS_KEPT} in one process with 1 thread, student {in_words(plain)}, "
        f"fp32, batch {BATCH} of {SIDE}x{SIDE} grey images, {CLASSES} classes; "
        f"{surroundings('torch')}"
    )
    return Figure(own_s / ce_s, "x", how, BOUNDS.get(name))


def plain_student_for(config: ObjectiveBase) -> ModelConfig:
    """The student of both: with a distillation token, or of fewer pixels, where it is about that."""
    if DISTILLATION_LOGITS in config.student_features:
        return DISTILLED
    return STUDENT.with_overrides(resolution=SIDE // 2) if Need.IMAGES in config.needed else STUDENT


def in_words(student: ModelConfig) -> str:
    """A student in the words of a figure."""
    if student.is_of_library:
        return f"{student.variant} with {student.arguments}"
    fewer = "" if student.resolution is None else f" at {student.resolution}x{student.resolution}"
    return f"{student.name} of width {student.width}{fewer}"


def teacher_for(config: ObjectiveBase) -> nn.Module:
    """The teacher, with what an objective asks it to be prepared with; untrained."""
    teacher = network(TEACHER)
    if config.preparation is None:
        return teacher
    return extended(teacher, [config.preparation], n_classes=CLASSES, input_shape=(1, SIDE, SIDE)).eval()


def kept_for(config: ObjectiveBase) -> dict[str, tuple[str, ...]]:
    """What a cache keeps beside the logits for an objective."""
    names = tuple(dict.fromkeys((EMBEDDING, *config.teacher_features)))
    kept = dict.fromkeys(config.teacher_banks, names)
    return kept | ({"teacher": ("classifier",)} if Need.TEACHER_CLASSIFIER in config.needed else {})
