"""Every objective teaches a small student the digits, from a teacher's fp16 cache, through the one loop."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.unit.trainables.cache.tiny_caches import TinyCache
from tests.unit.trainables.objective_variants import reseeded, student_with_distillation_token
from trainables.config import (
    OBJECTIVE_CONFIGS,
    BankConfig,
    CeConfig,
    CropFlipStep,
    DataConfig,
    DataName,
    ModelConfig,
    ModelName,
    Need,
    ObjectiveBase,
    RandAugmentStep,
    TrainingConfig,
    ViewsConfig,
)
from trainables.config.cache import CLASSIFIER
from trainables.config.cache import TEACHER as TEACHER_PART
from trainables.config.objective_base import Preparation
from trainables.config.representation.inputs import DISTILLATION_LOGITS
from trainables.config.representation.preparation import PrepareBranchesConfig, PrepareHeadConfig
from trainables.data import load_training
from trainables.data.splits import split_facts
from trainables.models import build_model
from trainables.teacher.prepared import extended
from trainables.training.course import Course, Trained
from trainables.training.loop import train
from trainables.training.workbench import Workbench

CROP = CropFlipStep(op="crop_flip", padding=1, flip_probability=0.0)
VIEWS = ViewsConfig(
    weak=BankConfig(recipe=(CROP,), views=2),
    strong=BankConfig(recipe=(CROP, RandAugmentStep(op="randaugment")), views=2),
)
TEACHER = ModelConfig(name=ModelName.CONVNET, width=16)
TEACHER_WIDTH = 64
RECIPE = TrainingConfig(epochs=6, batch_size=32, lr=0.05)
CHANGES: dict[str, dict[str, float | str]] = {
    # The networks have two stages.
    "reviewkd": {"levels": 3},
    "hsakd": {"stages": 2},
    # At their default weights the labels are too little heard to be learned from in six epochs.
    "sp": {"sp_weight": 500.0},
    # A mean over places: of maps of 2x2 it is sixteen times that of the benchmark's last maps, of 8x8.
    "at": {"stages": "1,2", "at_weight": 3.0},
    "fitnet": {"hint_weight": 10.0},
    "mlkd": {"individual_weight": 2.0, "relation_weight": 5.0},
    "tat": {"ce_weight": 0.5, "kd_weight": 0.5, "tat_weight": 0.1},  # its other release's
    "akd": {"steps": 2},
    "simreg": {"ce_weight": 1.0},  # without labels its classifier learns nothing
    # At its default weight the covariance of raw logits drowns all else: nothing is learned in six epochs.
    "clkd": {"covariance_weight": 0.001, "logit_weight": 20.0},
    "tintem": {"ce_weight": 1.0},  # without labels the classifier learns nothing
}
# An embedding's part of 40 times the cosine takes long steps at first.
RECIPES = {
    "cbd": RECIPE.with_overrides(clip_norm=1.0),
    # A transformer is slow to find out what neighbours are.
    "deit": RECIPE.with_overrides(optimizer="adamw", lr=0.003, epochs=20),
    "pixel": RECIPE.with_overrides(lr=0.02),  # 50 times the difference of images takes long steps too
}


def network(config: ModelConfig) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return build_model(config, n_classes=10, in_channels=1)


@pytest.fixture(scope="module")
def workbench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    data = load_training(DataConfig(name=DataName.DIGITS, train_limit=640))
    teacher = network(TEACHER)
    plain = Workbench(data, VIEWS, view_seed=7, device=torch.device("cpu"))
    train(Course(teacher, CeConfig(), RECIPE, 1), plain, on_epoch=lambda *_: None)
    folder, teacher = tmp_path_factory.mktemp("lab"), prepared(teacher, plain)
    tiny = TinyCache(
        folder, data, teacher, split_facts(data), views=VIEWS, features=asked_for(), rows_per_shard=256
    )
    tiny.build(tuple(bank for bank in tiny.features if bank != TEACHER_PART))
    return Workbench(data, VIEWS, view_seed=7, device=torch.device("cpu"), cache=tiny.open())


def prepared(teacher: nn.Module, plain: Workbench) -> nn.Module:
    """The teacher with SSKD's head and HSAKD's branches, trained beside it for two epochs each."""
    whole = extended(teacher, list(Preparation), n_classes=10, input_shape=(1, 8, 8))
    beside = RECIPE.with_overrides(epochs=2, freeze=("base",))
    for objective in (PrepareHeadConfig(), PrepareBranchesConfig(branches=2)):
        train(Course(whole, objective, beside, 1, keeps_last=True), plain, on_epoch=lambda *_: None)
    return whole.eval()


def student_for(objective: ObjectiveBase) -> nn.Module:
    if DISTILLATION_LOGITS in objective.student_features:
        return student_with_distillation_token(10, embed_dim=96, num_heads=4)
    head = TEACHER_WIDTH if Need.COSINE_HEAD in objective.needed else None
    few_pixels = 4 if Need.IMAGES in objective.needed else None
    return network(ModelConfig(name=ModelName.CONVNET, width=8, cosine_head=head, resolution=few_pixels))


def objective_of(name: str) -> ObjectiveBase:
    return OBJECTIVE_CONFIGS[name]().with_overrides(**CHANGES.get(name, {}))


def asked_for() -> dict[str, tuple[str, ...]]:
    """By bank, the features that some objective asks for, but those of a prepared teacher."""
    asked = [("weak", "embedding"), ("strong", "embedding")]
    for config in map(objective_of, OBJECTIVE_CONFIGS):
        asked += [(bank, feature) for bank in config.teacher_banks for feature in config.teacher_features]
        if Need.TEACHER_CLASSIFIER in config.needed:
            asked.append((TEACHER_PART, CLASSIFIER))
    banks = dict.fromkeys(bank for bank, _ in asked)
    return {bank: tuple(dict.fromkeys(name for of, name in asked if of == bank)) for bank in banks}


@pytest.mark.parametrize("name", OBJECTIVE_CONFIGS)
def test_every_objective_teaches_a_student(workbench: Workbench, name: str) -> None:
    objective = objective_of(name)
    told: list[dict[str, float]] = []
    recipe = RECIPES.get(name, RECIPE)
    peers = tuple(
        Trained(reseeded(student_for(objective), number)) for number in range(1, objective.n_networks)
    )
    course = Course(student_for(objective), objective, recipe, 3, peers=peers)
    outcome = train(course, workbench, on_epoch=lambda _, metrics: told.append(metrics))
    assert outcome.best["selection/accuracy"] > 0.6
    assert len(told) == recipe.epochs
    kept = {key: value for key, value in told[-1].items() if key.startswith("train/kept")}
    assert all(0.0 <= value <= 1.0 for value in kept.values())
