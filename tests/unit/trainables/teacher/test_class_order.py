"""A teacher's classes are found by name among its outputs, and its answers are of the data's classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.checkpoint_header import preprocessing_metadata, stated_classes
from trainables.config import (
    CacheConfig,
    ClassRows,
    DataConfig,
    DataName,
    ModelConfig,
    ModelName,
    Normalisation,
    TeacherSource,
    TrainingConfig,
    ViewsConfig,
)
from trainables.data import TrainingData, load_training
from trainables.data.splits import split_facts
from trainables.errors import CheckpointError, ConfigError
from trainables.models import build_model
from trainables.models.foreign.aligned import Aligned, aligned
from trainables.models.weights import save_weights
from trainables.teacher.cache_request import CacheRequest
from trainables.teacher.class_order import class_rows, known_classes
from trainables.teacher.live import LiveTeacher
from trainables.teacher.loading import load_teacher, teacher_fingerprint, teacher_of
from trainables.teacher.preprocessing import shown_as_trained
from trainables.training.train_teacher import TeacherRequest, checkpoint_facts, make_teacher
from trainables.views.normalise import normalise

DATA = DataConfig(name=DataName.DIGITS, train_limit=500)
MODEL = ModelConfig(name=ModelName.MLP, width=24)
NAMES = ("9", "cat", "0", "1", "2", "dog", "3", "4", "8", "7", "6", "5")
"""Those of the digits in another order, and two more."""


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return load_training(DATA)


@pytest.fixture(scope="module")
def network(data: TrainingData) -> nn.Module:
    """Trained to give the digits under NAMES."""
    place = torch.tensor([NAMES.index(name) for name in data.classes])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trained = build_model(MODEL, n_classes=len(NAMES), in_channels=1)
        optimizer = torch.optim.Adam(trained.parameters(), lr=0.01)
        images = normalise(data.train.images[:], data.mean, data.std)
        for _ in range(60):
            optimizer.zero_grad()
            F.cross_entropy(trained(images), place[data.train.labels]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return trained.eval()


@pytest.fixture
def bare(network: nn.Module, tmp_path: Path) -> str:
    save_weights(network, tmp_path / "bare.safetensors", {})
    return str(tmp_path / "bare.safetensors")


def request(folder: Path, **said: Any) -> TeacherRequest:
    fields = {"model": MODEL, "normalisation": "data", "training": TrainingConfig(), **said}
    return TeacherRequest(data=DATA, views=ViewsConfig(), seed=1, folder=str(folder), **fields)


def test_classes_that_the_file_names_are_put_into_the_datas_order_and_the_others_left_out(
    data: TrainingData, network: nn.Module, bare: str, tmp_path: Path
) -> None:
    asked_for = request(tmp_path / "a", checkpoint=bare, classes=NAMES)
    facts = make_teacher(asked_for, lambda *_: None)
    assert facts.selection_accuracy is not None
    assert facts.selection_accuracy > 0.8
    rows = tuple(NAMES.index(name) for name in data.classes)
    assert facts.classes == ClassRows(n_outputs=12, rows=rows)
    kept = facts.kept(asked_for)
    assert kept is not None
    images = normalise(data.selection.images[:], data.mean, data.std)
    with torch.no_grad():
        teacher, own = load_teacher(kept, data).eval()(images), network(images)
    assert torch.equal(teacher, own[:, list(rows)])
    # The network's own distribution, given that one of these classes is the right one.
    given = own.softmax(dim=1)[:, list(rows)]
    torch.testing.assert_close(teacher.softmax(dim=1), given / given.sum(dim=1, keepdim=True))


def test_what_the_teacher_stage_keeps_says_the_networks_own_classes(
    data: TrainingData, bare: str, tmp_path: Path
) -> None:
    first = make_teacher(request(tmp_path / "a", checkpoint=bare, classes=NAMES), lambda *_: None)
    assert stated_classes(Path(str(first.weights))) == NAMES
    again = make_teacher(request(tmp_path / "b", checkpoint=first.weights), lambda *_: None)
    assert again == first.with_overrides(weights=again.weights)
    known = checkpoint_facts(request(tmp_path, checkpoint=first.weights), str(first.weights), data)
    assert known.fingerprint == first.fingerprint


def test_the_order_counts_in_the_identity_where_it_changes_something(
    data: TrainingData, network: nn.Module
) -> None:
    plain = teacher_fingerprint(MODEL, network)
    one, two = (ClassRows(n_outputs=12, rows=tuple(range(first, first + 10))) for first in (0, 1))
    found = {teacher_fingerprint(MODEL, aligned(network, rows)) for rows in (None, one, two)}
    assert plain in found
    assert len(found) == 3
    assert class_rows(data.classes, data.classes, whose="it") is None
    assert class_rows(None, data.classes, whose="it") is None


def test_the_files_word_counts_before_that_of_the_checkpoint(network: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "stated.safetensors"
    own = Normalisation(mean=(0.5,), std=(0.5,))
    save_weights(network, path, preprocessing_metadata(own, NAMES))
    stated = TeacherSource(model=MODEL, checkpoint=str(path))
    assert known_classes(stated) == NAMES
    assert known_classes(stated.with_overrides(classes=["a", "b"])) == ("a", "b")
    assert known_classes(TeacherSource(model=MODEL, checkpoint=None)) is None


class Labelled(nn.Sequential):
    """As a network of transformers says what its outputs are."""

    def __init__(self, labels: dict[int, str], *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.config = type("Config", (), {"id2label": labels})()


def test_a_network_that_carries_its_labels_is_aligned_by_them(data: TrainingData) -> None:
    brought = TeacherSource(
        model=ModelConfig(factory="nowhere:network"), checkpoint=None, pretrained=True, normalisation="data"
    )
    network = Labelled(dict(enumerate(NAMES)), nn.Flatten(), nn.Linear(64, 12))
    assert isinstance(shown_as_trained(network, brought, data), Aligned)
    unnamed = Labelled({n: f"LABEL_{n}" for n in range(10)}, nn.Flatten(), nn.Linear(64, 10))
    assert shown_as_trained(unnamed, brought, data) is unnamed


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (
            ("zero", "1", "2"),
            r"it has 3 classes, and none of them is called '0', '3', as classes of the data set are",
        ),
        (("00", "1", "2", "3"), r"called '0', as classes of the data set are \(its nearest is '00'\)"),
        (("0", "1", "1", "2", "3"), r"two classes called '1', so its order is not known by names"),
    ],
)
def test_a_class_that_the_teacher_lacks_or_has_twice_is_named(known: tuple[str, ...], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        class_rows(known, ("0", "1", "2", "3"), whose="it")


@pytest.mark.parametrize("is_of_library", [True, False])
def test_a_file_that_names_other_classes_is_refused_for_networks_of_libraries_too(
    is_of_library: bool, data: TrainingData, tmp_path: Path
) -> None:
    model = ModelConfig(name="timm", variant="test_resnet") if is_of_library else ModelConfig(name="mlp")
    loaded = build_model(model, n_classes=len(data.classes), in_channels=1)
    stated = preprocessing_metadata(data.normalisation, [f"pet {name}" for name in data.classes])
    save_weights(loaded, tmp_path / "pets.safetensors", stated)
    source = TeacherSource(model=model, checkpoint=str(tmp_path / "pets.safetensors"))
    with pytest.raises(CheckpointError, match="none of them is called"):
        shown_as_trained(loaded, source, data)


def test_a_network_with_other_outputs_than_were_named_is_refused() -> None:
    network = Aligned(nn.Flatten(), ClassRows(n_outputs=3, rows=(0, 2)))
    with pytest.raises(ConfigError, match=r"3 classes were named, and the network gives .*\(2, 4\) for 2"):
        network(torch.zeros(2, 1, 2, 2))


def test_its_embedding_is_what_its_own_classifier_is_given(
    data: TrainingData, network: nn.Module, bare: str, tmp_path: Path
) -> None:
    asked_for = request(tmp_path / "a", checkpoint=bare, classes=NAMES)
    facts = make_teacher(asked_for, lambda *_: None)
    asked = CacheRequest(
        data=DATA,
        facts=split_facts(data),
        teacher=facts.kept(asked_for),
        teacher_digest=facts.fingerprint,
        views=ViewsConfig(),
        banks=("weak",),
        view_seed=3,
        cache=CacheConfig(embedding=True),
        folder=str(tmp_path),
    )
    cpu = torch.device("cpu")
    live = LiveTeacher(teacher_of(asked, data), data, seed=1, batch_size=4, device=cpu)
    images: Tensor = normalise(data.train.images[:4], data.mean, data.std)
    answers = live.answers_about(images, ("embedding",))
    assert answers.logits_BC.shape == (4, 10)
    assert answers.features["embedding"].shape == (4, 24)
    classifier = live.classifier()  # its rows are of the data's classes, in their order
    made_BC = answers.features["embedding"] @ classifier.weight_CD.T + classifier.bias_C
    torch.testing.assert_close(made_BC, answers.logits_BC, atol=1e-4, rtol=1e-4)


def test_data_of_fewer_classes_are_answered_by_these_alone(data: TrainingData, network: nn.Module) -> None:
    few = replace(data, classes=("3", "cat"))
    source = TeacherSource(
        model=ModelConfig(factory="nowhere:network"), checkpoint=None, pretrained=True,
        normalisation="data", classes=NAMES,
    )  # fmt: skip
    images = normalise(data.train.images[:4], data.mean, data.std)
    assert shown_as_trained(network, source, few)(images).shape == (4, 2)
