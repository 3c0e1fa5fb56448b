"""The teacher online, recipe by recipe: it says what an fp32 cache says, and leads to the same student."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from tests.unit.trainables.cache.tiny_caches import TinyCache
from tests.unit.trainables.training.small_courses import (
    CPU,
    SHORT,
    same_weights,
    separable_data,
    small_course,
    small_student,
    weights_of,
)
from trainables.config import BankConfig, CrldConfig, KdConfig, ObjectiveBase, Precision, Recipe, ViewsConfig
from trainables.data.splits import split_facts
from trainables.teacher.live import LiveTeacher
from trainables.teacher.online import OnlineTeacher
from trainables.training.loop import train
from trainables.training.workbench import Workbench

pytestmark = pytest.mark.usefixtures("one_thread")

SEED = 7
EPOCHS, SAMPLES = 2, 24
CROP = {"op": "crop_flip", "padding": 1}
RECIPES: Final = {
    "none": [],
    "crop_flip": [CROP],
    "random_resized_crop": [{"op": "random_resized_crop"}],
    "randaugment": [{"op": "randaugment"}],
    "trivial_augment": [{"op": "trivial_augment"}],
    "cutout": [{"op": "cutout"}],
    "rotation": [{"op": "rotation"}],
    "mixup": [{"op": "mixup"}],
    "cutmix": [{"op": "cutmix"}],
    "chain": [CROP, {"op": "randaugment"}, {"op": "cutout"}, {"op": "mixup", "alpha": 0.4}],
}


def views_of(recipe: str) -> ViewsConfig:
    steps = TypeAdapter(Recipe).validate_python(RECIPES[recipe])
    # As many views as epochs: none is seen twice.
    weak = BankConfig(recipe=steps, views=EPOCHS)
    return ViewsConfig(weak=weak, strong=BankConfig(views=1))


def lab_of(recipe: str, folder: Path, *, batch_size: int, precision: Precision) -> TinyCache:
    data = separable_data(SAMPLES)
    views = views_of(recipe)
    tiny = TinyCache(folder, data, small_student(seed=9), split_facts(data), views, SEED, precision)
    tiny = tiny.but(batch_size=batch_size)
    tiny.build()
    return tiny


def online(tiny: TinyCache) -> OnlineTeacher:
    live = LiveTeacher(tiny.teacher, tiny.data, seed=SEED, batch_size=tiny.batch_size, device=CPU)
    return OnlineTeacher(live, tiny.views)


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_fp32_cache_says_bit_for_bit_what_the_online_teacher_says(recipe: str, tmp_path: Path) -> None:
    tiny = lab_of(recipe, tmp_path, batch_size=7, precision=Precision.FP32)
    teacher, reader = online(tiny), tiny.open()
    for view in range(EPOCHS):
        for first in range(
            0, tiny.facts.n_train, tiny.rows_per_shard
        ):  # the teacher's batches end with a shard
            rows_B = torch.arange(first, min(first + tiny.rows_per_shard, tiny.facts.n_train))
            said, kept = teacher.signal("weak", view, rows_B), reader.signal("weak", view, rows_B)
            assert torch.equal(said.logits_BC, kept.logits_BC)
            assert torch.equal(said.confidence_B, kept.confidence_B)


def trained(tiny: TinyCache, teacher: object, objective: ObjectiveBase) -> dict[str, Tensor]:
    workbench = Workbench(tiny.data, tiny.views, view_seed=SEED, device=CPU, cache=teacher)  # type: ignore[arg-type]
    course = small_course(SHORT.with_overrides(epochs=EPOCHS), objective=objective)
    train(course, workbench, on_epoch=lambda *_: None)
    return weights_of(course.model)


@pytest.mark.parametrize("recipe", RECIPES)
def test_training_from_an_fp32_cache_ends_with_the_weights_of_online_training(
    recipe: str, tmp_path: Path
) -> None:
    """Asked about one sample at a time, no batch can make the teacher's sums differ in their last bit."""
    tiny = lab_of(recipe, tmp_path, batch_size=1, precision=Precision.FP32)
    objective = CrldConfig() if recipe == "chain" else KdConfig()
    assert same_weights(trained(tiny, tiny.open(), objective), trained(tiny, online(tiny), objective))


def test_a_cache_in_half_precision_leads_to_a_student_that_differs_a_little(tmp_path: Path) -> None:
    tiny = lab_of("crop_flip", tmp_path, batch_size=1, precision=Precision.FP16)
    cached, live = trained(tiny, tiny.open(), KdConfig()), trained(tiny, online(tiny), KdConfig())
    differences = [float((cached[name] - live[name]).abs().max()) for name in live]
    assert 0 < max(differences) < 1e-2
