"""The shipped recipes, shortened, on stand-ins in the data sets' own formats: real files and networks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from orchestrator.config.loading import EXPERIMENTS_FOLDER, load_experiment
from orchestrator.config.yaml_reader import read_yaml
from tests.integration.data_stand_ins import (
    CPU,
    EPOCHS,
    SEED,
    STEPS,
    Trained,
    built,
    cached,
    cifar100_stand_in,
    few_views,
    image_folder_stand_in,
)
from trainables.config import CeConfig, KdConfig
from trainables.data import TrainingData, load_training
from trainables.models.weights import load_weights
from trainables.training.workbench import Workbench

pytestmark = pytest.mark.usefixtures("one_thread")

PAIRS = tuple(read_yaml(EXPERIMENTS_FOLDER / "cifar100.yaml").data["pairs"])
LIMIT = 16


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainingData]:
    """The stand-in, read as the shipped file says."""
    config = load_experiment("cifar100", check_paths=False).config.data
    with cifar100_stand_in(tmp_path_factory.mktemp("datasets")) as root:
        yield load_training(config.with_overrides(root=str(root), download=False, train_limit=LIMIT))


Benches = dict[str, Workbench]


@pytest.fixture(scope="module")
def benches() -> Benches:
    """By teacher, workbenches that serve what it said: several pairs share a teacher."""
    return {}


def assert_trained(course: Trained, *, lr: float, terms: set[str]) -> None:
    assert course.outcome.epochs == len(course.epochs) == EPOCHS
    assert course.rates == pytest.approx([lr] * STEPS + [0.1 * lr] * STEPS)
    for metrics in course.epochs:
        assert {f"train/{term}" for term in terms} <= metrics.keys()
        assert all(math.isfinite(value) for value in metrics.values())


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS)
def test_teacher_and_student_of_each_pair_train_by_the_recipe(
    pair: str, cifar: TrainingData, benches: Benches, tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = load_experiment(f"cifar100:{pair}", check_paths=False).config
    views, model = few_views(config.views), config.teacher.model
    assert model is not None
    if model.digest() not in benches:
        workbench = Workbench(cifar, views, view_seed=SEED, device=CPU)
        teacher = Trained(built(model, cifar), CeConfig(), config.teacher.training, workbench)
        assert_trained(teacher, lr=0.05, terms={"ce"})
        benches[model.digest()] = cached(tmp_path_factory.mktemp("cache"), cifar, teacher.model, views)
    student = Trained(built(config.student, cifar), KdConfig(), config.training, benches[model.digest()])
    assert_trained(student, lr=config.training.lr, terms={"ce", "kd"})


def test_the_stand_in_is_normalised_as_the_recipe_says(cifar: TrainingData) -> None:
    assert cifar.mean == (0.5071, 0.4867, 0.4408)
    assert cifar.std == (0.2675, 0.2565, 0.2761)
    assert cifar.train.images.shape == (LIMIT, 3, 32, 32)
    assert len(cifar.classes) == 100


def test_the_imagenet_recipe_trains_a_student_beside_a_teacher_from_a_checkpoint(tmp_path: Path) -> None:
    root = image_folder_stand_in(tmp_path / "images")
    config = load_experiment("imagenet", check_paths=False).config
    sizes = {"image_size": 64, "train_limit": LIMIT, "selection_fraction": 0.3}
    data = load_training(config.data.with_overrides(root=str(root), **sizes))
    assert config.teacher.model is not None
    torch.save(built(config.teacher.model, data).state_dict(), tmp_path / "resnet34.pth")
    teacher = built(config.teacher.model, data)
    load_weights(teacher, tmp_path / "resnet34.pth")
    views = few_views(config.views)
    workbench = cached(tmp_path / "cache", data, teacher, views)
    student = Trained(built(config.student, data), KdConfig(), config.training, workbench)
    assert_trained(student, lr=0.1, terms={"ce", "kd"})
