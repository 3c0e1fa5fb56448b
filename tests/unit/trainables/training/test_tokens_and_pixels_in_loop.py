"""TinTeM on tokens, Pixel Distillation of few pixels, and DeiT, through the one loop and from a cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.unit.trainables.cache.tiny_caches import TinyCache
from tests.unit.trainables.objective_variants import staged_network, student_with_distillation_token
from tests.unit.trainables.training.small_courses import (
    CPU,
    SHORT,
    VIEWS,
    same_weights,
    separable_data,
    small_course,
    small_workbench,
    untimed,
    weights_of,
)
from trainables.config import ModelConfig, ModelName, ObjectiveBase, Precision
from trainables.config.cache import FeaturePrecision
from trainables.config.representation.inputs import DeitConfig, PixelConfig
from trainables.config.representation.tokens import TintemConfig
from trainables.data.splits import split_facts
from trainables.errors import TrialFailed
from trainables.models import build_model
from trainables.objectives import PixelObjective
from trainables.signals import Losses, Signals
from trainables.teacher.live import LiveTeacher
from trainables.teacher.online import OnlineTeacher
from trainables.training.loop import train
from trainables.training.workbench import Workbench

pytestmark = pytest.mark.usefixtures("one_thread")

TOKENS = TintemConfig(level="tokens", ce_weight=1.0)
MAPS = PixelConfig(feature_weight=1.0, eta=10.0)


def transformer(width: int, *, patch: int = 4, variant: str = "vit_tiny_patch16_224") -> nn.Module:
    arguments = {"img_size": 8, "patch_size": patch, "embed_dim": width, "depth": 1, "num_heads": 2}
    return built(ModelConfig(name=ModelName.TIMM, variant=variant, arguments=arguments))


def built(config: ModelConfig) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return build_model(config, n_classes=3, in_channels=1)


def of_few_pixels() -> nn.Module:
    """The network of `staged_network`, for images of 4x4."""
    return built(ModelConfig(name=ModelName.RESNET8, width=4, resolution=4))


def cache_of(folder: Path, teacher: nn.Module, objective: ObjectiveBase) -> TinyCache:
    data = separable_data()
    tiny = TinyCache(
        *(folder, data, teacher, split_facts(data)),
        views=VIEWS,
        precision=Precision.FP32,
        features={"weak": objective.teacher_features},
        feature_precision=FeaturePrecision.FP32,
        batch_size=1,
    )
    tiny.build(("weak",))
    return tiny


def trained(
    workbench: Workbench, objective: ObjectiveBase, model: nn.Module
) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    told: list[dict[str, float]] = []
    course = replace(small_course(SHORT.with_overrides(epochs=2, lr=0.01), objective=objective), model=model)
    train(course, workbench, on_epoch=lambda _, metrics: told.append(untimed(metrics)))
    return weights_of(model), told


@pytest.mark.parametrize(
    ("objective", "teacher", "student"),
    [
        (TOKENS, lambda: transformer(16), lambda: transformer(8)),
        (MAPS, lambda: staged_network(seed=9), of_few_pixels),
        (DeitConfig(form="soft"), lambda: staged_network(seed=9), student_with_distillation_token),
    ],
    ids=["tokens", "few pixels, with maps", "distillation token"],
)
def test_cached_features_teach_as_a_teacher_beside_the_student_does_to_the_bit(
    tmp_path: Path,
    objective: ObjectiveBase,
    teacher: Callable[[], nn.Module],
    student: Callable[[], nn.Module],
) -> None:
    tiny = cache_of(tmp_path, teacher(), objective)
    live = LiveTeacher(tiny.teacher, tiny.data, seed=7, batch_size=1, device=CPU)
    from_cache = trained(small_workbench(tiny.data, cache=tiny.open()), objective, student())
    online = OnlineTeacher(live, tiny.views)
    from_teacher = trained(small_workbench(tiny.data, cache=online), objective, student())
    assert same_weights(from_cache[0], from_teacher[0])
    assert from_cache[1] == from_teacher[1]
    assert from_cache[0].keys() == weights_of(student()).keys()  # no trace of the objective's own layers
    assert not same_weights(from_cache[0], weights_of(student()))


def test_the_image_that_is_drawn_is_the_teachers_view_and_not_the_students_few_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny, seen = cache_of(tmp_path, staged_network(seed=9), PixelConfig()), list[Signals]()
    plain = PixelObjective.forward

    def noted(self: PixelObjective, signals: Signals) -> Losses:
        seen.append(signals)
        return plain(self, signals)

    monkeypatch.setattr(PixelObjective, "forward", noted)
    trained(small_workbench(tiny.data, cache=tiny.open()), PixelConfig(), of_few_pixels())
    for signals in seen:
        images_BCHW, answer = signals.images["weak"], signals.teacher["weak"]
        assert images_BCHW.shape[1:] == (1, 8, 8)
        assert signals.features["weak"]["first_conv"].shape[2:] == (4, 4)
        with torch.no_grad():
            torch.testing.assert_close(tiny.teacher(images_BCHW), answer.logits_BC, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("objective", "student", "message"),
    [
        (DeitConfig(), lambda: transformer(8), r"no feature 'class_logits'; .* `features: \{class_logits"),
        (
            TOKENS,
            lambda: transformer(8, patch=2),
            r"student has 17 tokens of 8 numbers, the teacher 5 tokens",
        ),
        (TOKENS, staged_network, r"no feature 'tokens'"),
        (
            MAPS.with_overrides(eta=0.0),
            lambda: built(ModelConfig(name=ModelName.RESNET8, width=2)),
            r"the student's has 8 channels, the teacher's 16",
        ),
    ],
    ids=["no distillation token", "more patches", "no tokens", "maps of other channels"],
)
def test_a_student_that_cannot_give_what_is_asked_for_is_refused_by_name(
    tmp_path: Path, objective: ObjectiveBase, student: Callable[[], nn.Module], message: str
) -> None:
    maps = "last" in objective.teacher_features
    tiny = cache_of(tmp_path, staged_network(seed=9) if maps else transformer(16), objective)
    with pytest.raises(TrialFailed, match=message):
        trained(small_workbench(tiny.data, cache=tiny.open()), objective, student())


def test_heads_that_a_file_names_are_those_of_a_users_own_transformer(tmp_path: Path) -> None:
    class Own(nn.Module):
        """Two heads under names that no library has."""

        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU())
            self.labels, self.teacher = nn.Linear(8, 3), nn.Linear(8, 3)

        def forward(self, images_BCHW: Tensor) -> Any:
            features_BD = self.body(images_BCHW)
            return (self.labels(features_BD) + self.teacher(features_BD)) / 2

    tiny, model = cache_of(tmp_path, staged_network(seed=9), DeitConfig()), Own()
    before, stated = weights_of(model), {"class_logits": "labels", "distillation_logits": "teacher"}
    course = replace(
        small_course(SHORT.with_overrides(epochs=1), objective=DeitConfig()), model=model, stated=stated
    )
    train(course, small_workbench(tiny.data, cache=tiny.open()), on_epoch=lambda *_: None)
    assert not torch.equal(before["teacher.weight"], model.teacher.weight)
