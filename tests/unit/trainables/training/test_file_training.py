"""From a folder that stays in its files to students: teacher pass, proof, cache and training, without Ray."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.unit.trainables.cache.tiny_caches import TinyCache
from tests.unit.trainables.data.image_folders import config_of, write_folder
from tests.unit.trainables.training.small_courses import CPU, same_weights, untimed, weights_of
from trainables.cache.node.reader import CacheReader
from trainables.config import (
    BankConfig,
    CeConfig,
    CropFlipStep,
    KdConfig,
    ObjectiveBase,
    Precision,
    TrainingConfig,
    ViewsConfig,
)
from trainables.config.views import MixupStep, RandomResizedCropStep, Step
from trainables.data import TrainingData, load_training
from trainables.data.splits import split_facts
from trainables.errors import CacheError
from trainables.teacher.alignment_proof import prove_alignment
from trainables.teacher.live import LiveTeacher
from trainables.teacher.online import OnlineTeacher
from trainables.training.course import Course
from trainables.training.loop import train
from trainables.training.workbench import Workbench

pytestmark = pytest.mark.usefixtures("one_thread")

SEED, EPOCHS = 7, 2
CROP = CropFlipStep(op="crop_flip", padding=1)
CUT = (
    RandomResizedCropStep(op="random_resized_crop", scale=(0.3, 1.0)),
    CROP,
    MixupStep(op="mixup", alpha=0.4),
)
TRAINING = TrainingConfig(epochs=EPOCHS, batch_size=5, lr=0.05, eval_batch_size=3)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = write_folder(tmp_path_factory.mktemp("pictures"), per_class=10)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    yield folder
    tempfile.tempdir = before


def colour_student(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2)
        )


def views_of(*recipe: Step) -> ViewsConfig:
    """As many views as epochs: none is seen twice."""
    return ViewsConfig(weak=BankConfig(recipe=recipe, views=EPOCHS))


def trained(
    data: TrainingData,
    views: ViewsConfig,
    objective: ObjectiveBase,
    teacher: CacheReader | OnlineTeacher | None = None,
) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    workbench = Workbench(data, views, view_seed=SEED, device=CPU, cache=teacher)
    course, told = Course(colour_student(), objective, TRAINING, 3), list[dict[str, float]]()
    train(course, workbench, on_epoch=lambda _, metrics: told.append(untimed(metrics)))
    return weights_of(course.model), told


@pytest.fixture(scope="module")
def tiny(root: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyCache:
    """The fp32 cache of views whose boxes are cut out of files; asked about one sample at a time."""
    data, folder = load_training(config_of(root)), tmp_path_factory.mktemp("lab")
    tiny = TinyCache(folder, data, colour_student(9), split_facts(data), views_of(*CUT), SEED, Precision.FP32)
    tiny = tiny.but(batch_size=1, rows_per_shard=64)
    tiny.build(("weak",))
    return tiny


def test_training_from_files_is_training_from_memory_bit_for_bit(root: Path) -> None:
    views = views_of(CROP, MixupStep(op="mixup"))
    in_files, whole = load_training(config_of(root)), load_training(config_of(root, memory_gb=1))
    weights, told = trained(in_files, views, CeConfig())
    other_weights, other_told = trained(whole, views, CeConfig())
    assert same_weights(weights, other_weights)
    assert told == other_told
    assert len(told) == EPOCHS


def test_cached_training_from_files_is_online_training_bit_for_bit(tiny: TinyCache) -> None:
    live = LiveTeacher(tiny.teacher, tiny.data, seed=SEED, batch_size=1, device=CPU)
    weights, told = trained(tiny.data, tiny.views, KdConfig(), tiny.open())
    other_weights, other_told = trained(tiny.data, tiny.views, KdConfig(), OnlineTeacher(live, tiny.views))
    assert same_weights(weights, other_weights)
    assert told == other_told


def test_the_cache_of_a_folder_in_files_is_proved_against_the_live_teacher(tiny: TinyCache) -> None:
    proof = prove_alignment(tiny.open(), tiny.data, tiny.teacher, tiny.views, SEED, banks=("weak",))
    assert proof.largest_difference == pytest.approx(0, abs=1e-5)


def test_a_cache_of_the_folder_in_memory_is_another_cache(tiny: TinyCache, root: Path) -> None:
    whole = load_training(config_of(root, memory_gb=1))
    with pytest.raises(CacheError, match="cache was made from data"):
        Workbench(whole, tiny.views, view_seed=SEED, device=CPU, cache=tiny.open())


def test_the_proof_sees_boxes_that_were_drawn_for_other_sizes(tiny: TinyCache, root: Path) -> None:
    """As if a cache of images in memory, cropped at the data set's size, were taken for one of files."""
    whole = replace(load_training(config_of(root, memory_gb=1)), digest=tiny.data.digest)
    with pytest.raises(CacheError, match=r"rows of .* are not what the live teacher says"):
        prove_alignment(tiny.open(), whole, tiny.teacher, tiny.views, SEED, banks=("weak",))


def test_what_was_left_out_is_on_record(root: Path, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pictures")
    (folder / "train/rose/4.tif").write_bytes(b"")
    data = load_training(config_of(folder, skip_unreadable=True))
    assert split_facts(data).left_out == 1
