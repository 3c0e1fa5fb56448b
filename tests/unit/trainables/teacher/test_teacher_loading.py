"""One teacher has one identity, whoever works it out, and is loaded without traces."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from trainables.config import (
    CacheConfig,
    DataConfig,
    DataName,
    KeptNetwork,
    ModelConfig,
    ModelName,
    ViewsConfig,
)
from trainables.config.training import TrainingConfig
from trainables.data import TrainingData, load_training
from trainables.data.splits import split_facts
from trainables.errors import CheckpointError
from trainables.models import build_model
from trainables.models.weights import save_weights
from trainables.teacher.autocast import AutocastTeacher
from trainables.teacher.cache_request import CacheRequest
from trainables.teacher.loading import load_teacher, teacher_fingerprint, teacher_of
from trainables.training.train_teacher import TeacherRequest, checkpoint_facts, make_teacher

MODEL = ModelConfig(name=ModelName.MLP, width=8)


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return load_training(DataConfig(name=DataName.DIGITS, train_limit=20))


@pytest.fixture
def weights(tmp_path: Path) -> str:
    path = tmp_path / "given.safetensors"
    with torch.random.fork_rng():
        save_weights(build_model(MODEL, n_classes=10, in_channels=1), path, {})
    return str(path)


def test_a_teacher_has_the_identity_that_earlier_versions_gave_it() -> None:
    network = nn.Linear(2, 1, bias=False)
    nn.init.constant_(network.weight, 0.5)
    expected = "421d1bf80bd2321f697ec61ad8ed16f796379369b8e17f7dc6c1badf44739bc3"
    assert teacher_fingerprint(MODEL, network) == expected
    assert teacher_fingerprint(MODEL.with_overrides(width=9), network) != expected
    nn.init.constant_(network.weight, 0.25)
    assert teacher_fingerprint(MODEL, network) != expected


def test_a_teacher_has_one_identity_in_whichever_way_it_was_loaded(
    data: TrainingData, weights: str, tmp_path: Path
) -> None:
    request = TeacherRequest(
        data=DataConfig(name=DataName.DIGITS, train_limit=20),
        model=MODEL,
        checkpoint=weights,
        training=TrainingConfig(),
        views=ViewsConfig(),
        seed=1,
        normalisation="data",
        folder=str(tmp_path / "teacher"),
    )
    identity = teacher_fingerprint(MODEL, load_teacher(KeptNetwork(model=MODEL, weights=weights), data))
    assert make_teacher(request, lambda *_: None).fingerprint == identity
    assert checkpoint_facts(request, weights, data).fingerprint == identity


def test_a_teacher_is_loaded_without_touching_the_generator_of_its_caller(
    data: TrainingData, weights: str
) -> None:
    before = torch.get_rng_state()
    load_teacher(KeptNetwork(model=MODEL, weights=weights), data)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("autocast", [False, True])
def test_a_cache_is_made_of_a_teacher_in_the_precision_that_it_asks_for(
    data: TrainingData, weights: str, tmp_path: Path, autocast: bool
) -> None:
    request = CacheRequest(
        data=DataConfig(name=DataName.DIGITS, train_limit=20),
        facts=split_facts(data),
        teacher=KeptNetwork(model=MODEL, weights=weights),
        teacher_digest="0" * 64,
        views=ViewsConfig(),
        banks=("weak",),
        view_seed=3,
        cache=CacheConfig(autocast=autocast),
        folder=str(tmp_path),
    )
    assert isinstance(teacher_of(request, data), AutocastTeacher) == autocast


def test_a_checkpoint_of_another_network_is_refused_by_name(data: TrainingData, weights: str) -> None:
    with pytest.raises(CheckpointError, match="does not fit"):
        load_teacher(KeptNetwork(model=MODEL.with_overrides(width=9), weights=weights), data)
