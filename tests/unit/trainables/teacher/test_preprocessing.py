"""A loaded teacher sees the numbers that it was trained on, whatever the data's normalisation is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from tests.unit.trainables.cache.tiny_caches import TinyCache, random_data
from trainables.checkpoint_header import stated_classes, stated_normalisation
from trainables.config import (
    DataConfig,
    DataName,
    KeptNetwork,
    ModelConfig,
    ModelName,
    Normalisation,
    Precision,
    TeacherSource,
    TrainingConfig,
    ViewsConfig,
)
from trainables.data import TrainingData, load_training
from trainables.data.splits import split_facts
from trainables.errors import ConfigError
from trainables.models import build_model
from trainables.models.renormalised import Renormalised, renormalised
from trainables.models.weights import save_weights
from trainables.teacher.loading import load_teacher, teacher_fingerprint
from trainables.teacher.preprocessing import shown_as_trained
from trainables.training.train_teacher import TeacherRequest, make_teacher
from trainables.views.normalise import normalise
from trainables.views.showing import show

DATA = DataConfig(name=DataName.DIGITS, train_limit=600)
MODEL = ModelConfig(name=ModelName.MLP, width=32)
FACTORY = ModelConfig(factory="nowhere:network")
OWN = Normalisation(mean=(0.8,), std=(0.1,))
"""Far from what is measured on the digits, so that it shows at once."""


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return load_training(DATA)


@pytest.fixture(scope="module")
def network(data: TrainingData) -> nn.Module:
    """Trained on images that are normalised by OWN."""
    torch.manual_seed(0)
    trained = build_model(MODEL, n_classes=10, in_channels=1)
    optimizer = torch.optim.Adam(trained.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(trained(shown(data)), data.train.labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return trained.eval()


def shown(data: TrainingData) -> Tensor:
    return normalise(data.train.images[:], OWN.mean, OWN.std)


@pytest.fixture
def bare(network: nn.Module, tmp_path: Path) -> str:
    """Its weights in a file that says nothing of images."""
    save_weights(network, tmp_path / "bare.safetensors", {})
    return str(tmp_path / "bare.safetensors")


def source(**said: Any) -> TeacherSource:
    return TeacherSource(**{"model": MODEL, "checkpoint": None, **said})


def request(folder: Path, **said: Any) -> TeacherRequest:
    fields = {"model": MODEL, "checkpoint": None, "training": TrainingConfig(), **said}
    return TeacherRequest(data=DATA, views=ViewsConfig(), seed=1, folder=str(folder), **fields)


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return float((network(images).argmax(dim=1) == labels).double().mean())


def test_a_teacher_that_is_shown_its_own_numbers_is_as_good_as_it_was(
    data: TrainingData, network: nn.Module, bare: str, tmp_path: Path
) -> None:
    selection = normalise(data.selection.images[:], OWN.mean, OWN.std)
    was = accuracy(network, selection, data.selection.labels)
    found, measured = (
        make_teacher(request(tmp_path, checkpoint=bare, normalisation=stated), lambda *_: None)
        for stated in (OWN, "data")
    )
    assert found.selection_accuracy == pytest.approx(was, abs=1e-6)
    assert measured.selection_accuracy is not None
    assert measured.selection_accuracy < was - 0.05
    assert (found.normalisation, measured.normalisation) == (OWN, None)


def test_a_file_that_was_written_here_says_it_itself(data: TrainingData, bare: str, tmp_path: Path) -> None:
    first = make_teacher(request(tmp_path / "a", checkpoint=bare, normalisation=OWN), lambda *_: None)
    assert stated_normalisation(Path(str(first.weights))) == OWN
    assert stated_classes(Path(str(first.weights))) == data.classes
    again = make_teacher(request(tmp_path / "b", checkpoint=first.weights), lambda *_: None)
    assert again == first.with_overrides(weights=again.weights)


def test_a_teacher_trained_here_states_the_datas(data: TrainingData, tmp_path: Path) -> None:
    trained = make_teacher(request(tmp_path / "a", training=TrainingConfig(epochs=1)), lambda *_: None)
    assert stated_normalisation(Path(str(trained.weights))) == data.normalisation
    assert trained.normalisation is None
    assert "normalisation" not in trained.plain()


def test_logits_are_those_of_the_networks_own_numbers(data: TrainingData, network: nn.Module) -> None:
    teacher = renormalised(network, OWN, data_mean=data.mean, data_std=data.std)
    images = normalise(data.train.images[:], data.mean, data.std)
    with torch.no_grad():
        torch.testing.assert_close(teacher(images), network(shown(data)), rtol=1e-4, atol=1e-4)


def test_a_cache_keeps_what_the_teacher_says_of_its_own_numbers(tmp_path: Path) -> None:
    data = random_data()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 5)).eval()
    teacher = renormalised(network, OWN, data_mean=data.mean, data_std=data.std)
    tiny = TinyCache(tmp_path, data, teacher, split_facts(data), precision=Precision.FP32)
    tiny.build()
    rows, recipe = torch.arange(len(data.train.ids)), tiny.views.weak.recipe
    pixels = show(data.train, rows, recipe, seed=tiny.seed, view=1, device=torch.device("cpu"))
    with torch.no_grad():
        expected = network(normalise(pixels, OWN.mean, OWN.std))
    kept = tiny.open().signal("weak", 1, rows).unshifted().logits_BC
    torch.testing.assert_close(kept, expected, rtol=1e-4, atol=1e-4)


def test_its_own_normalisation_makes_another_teacher_and_the_datas_does_not(
    data: TrainingData, network: nn.Module, bare: str
) -> None:
    plain = teacher_fingerprint(MODEL, network)
    same = load_teacher(KeptNetwork(model=MODEL, weights=bare, normalisation=data.normalisation), data)
    other = load_teacher(KeptNetwork(model=MODEL, weights=bare, normalisation=OWN), data)
    third = load_teacher(
        KeptNetwork(model=MODEL, weights=bare, normalisation=OWN.with_overrides(std=(0.2,))), data
    )
    assert teacher_fingerprint(MODEL, same) == plain
    assert len({plain, teacher_fingerprint(MODEL, other), teacher_fingerprint(MODEL, third)}) == 3


def test_the_layer_has_no_weights_of_its_own(data: TrainingData, network: nn.Module) -> None:
    teacher = renormalised(network, OWN, data_mean=data.mean, data_std=data.std)
    assert isinstance(teacher, Renormalised)
    assert teacher.state_dict().keys() == {f"network.{name}" for name in network.state_dict()}


def test_a_file_that_says_nothing_is_refused_with_the_line_to_write(
    data: TrainingData, network: nn.Module, bare: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        shown_as_trained(network, source(checkpoint=bare), data)
    assert f"teacher.checkpoint {bare} does not say how images were normalised" in str(caught.value)
    assert "`normalisation: {mean: [...], std: [...]}`" in str(caught.value)


class FromTimm(nn.Linear):
    """What timm's networks carry."""

    pretrained_cfg: Any = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def test_a_factory_that_brings_its_weights_may_carry_the_numbers(data: TrainingData) -> None:
    colour = TrainingData(data.train, data.selection, data.classes, (0.5,) * 3, (0.25,) * 3, data.digest)
    teacher = shown_as_trained(FromTimm(3, 10), source(model=FACTORY, pretrained=True), colour)
    assert isinstance(teacher, Renormalised)
    assert teacher.normalisation.mean == (0.485, 0.456, 0.406)
    with pytest.raises(ConfigError, match=r"'nowhere:network' brings its weights .*write it below `teacher`"):
        shown_as_trained(nn.Linear(3, 10), source(model=FACTORY, pretrained=True), colour)


def test_numbers_of_a_librarys_own_weights_are_only_proposed_for_another_checkpoint(
    data: TrainingData, bare: str
) -> None:
    with pytest.raises(ConfigError, match=r"own weights have `normalisation: \{mean: \[0\.485, 0\.456"):
        shown_as_trained(FromTimm(3, 10), source(model=FACTORY, checkpoint=bare), data)


def test_torchvision_knows_its_own_files_by_their_names(data: TrainingData, tmp_path: Path) -> None:
    colour = TrainingData(data.train, data.selection, data.classes, (0.5,) * 3, (0.25,) * 3, data.digest)
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    model = ModelConfig(name=ModelName.TORCHVISION, variant="resnet18")
    own = source(model=model, checkpoint=str(tmp_path / weights.url.rpartition("/")[-1]))
    teacher = shown_as_trained(nn.Linear(1, 1), own, colour)
    assert isinstance(teacher, Renormalised)
    assert teacher.normalisation.std == (0.229, 0.224, 0.225)
    with pytest.raises(ConfigError, match="does not say how images were normalised"):
        shown_as_trained(nn.Linear(1, 1), source(model=model, checkpoint="fine-tuned.pth"), colour)


def test_numbers_for_other_channels_are_refused(data: TrainingData, network: nn.Module, bare: str) -> None:
    colour = Normalisation(mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(ConfigError, match="has 3 values in `mean` and in `std`; the images have 1 channels"):
        shown_as_trained(network, source(checkpoint=bare, normalisation=colour), data)
