"""What a student that starts from a file takes of it, and what it says of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from trainables.checkpoint_header import preprocessing_metadata
from trainables.config import ModelConfig, ModelName, Normalisation, StartWeights, StudentConfig
from trainables.errors import CheckpointError
from trainables.local_files import file_sha256
from trainables.models import build_model
from trainables.models.foreign.start import start_from
from trainables.models.weights import save_weights, weights_digest

CLASSES = ("ant", "bee", "cat", "dog")
STUDENT = ModelConfig(name=ModelName.RESNET8, width=2)


def built(config: ModelConfig = STUDENT, *, n_classes: int = 4, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(config, n_classes=n_classes, in_channels=1)


def at(path: Path) -> StartWeights:
    return StartWeights(path=str(path), sha256=file_sha256(path))


def saved(tmp_path: Path, state: dict[str, Tensor] | nn.Module) -> StartWeights:
    torch.save(state.state_dict() if isinstance(state, nn.Module) else state, tmp_path / "start.pt")
    return at(tmp_path / "start.pt")


def same(one: nn.Module, other: nn.Module) -> set[str]:
    """Names of the weights that both have alike."""
    theirs = other.state_dict()
    return {
        name
        for name, value in one.state_dict().items()
        if name in theirs and value.shape == theirs[name].shape and torch.equal(value, theirs[name])
    }


def test_all_is_taken_where_all_fits(tmp_path: Path) -> None:
    there, student = built(seed=1), built()
    assert start_from(student, saved(tmp_path, there), classes=CLASSES) == ()
    assert weights_digest(student) == weights_digest(there)


@pytest.mark.parametrize("resolution", [None, 12])
def test_a_head_of_another_size_stays_fresh(tmp_path: Path, resolution: int | None) -> None:
    there = built(n_classes=7, seed=1)
    config = STUDENT.with_overrides(resolution=resolution)
    student, untouched = built(config), built(config)
    head = {name for name in student.state_dict() if name.endswith(("fc.weight", "fc.bias"))}
    assert set(start_from(student, saved(tmp_path, there), classes=CLASSES)) == head
    assert head <= same(student, untouched)
    inner = student.get_submodule("network") if resolution else student
    assert same(inner, there) == set(there.state_dict()) - {"fc.weight", "fc.bias"}


def test_a_backbone_without_a_head_is_enough(tmp_path: Path) -> None:
    there = {
        f"backbone.{name}": value
        for name, value in built(seed=1).state_dict().items()
        if not name.startswith("fc.")
    }
    assert start_from(built(), saved(tmp_path, there), classes=CLASSES) == ("fc.weight", "fc.bias")


def test_a_cosine_head_in_its_place_stays_fresh(tmp_path: Path) -> None:
    student = built(STUDENT.with_overrides(cosine_head=5))
    fresh = start_from(student, saved(tmp_path, built(seed=1)), classes=CLASSES)
    assert fresh == ("fc.0.weight", "fc.0.bias", "fc.2.weight")


def test_a_head_that_is_a_convolution_stays_fresh(tmp_path: Path) -> None:
    config = ModelConfig(name=ModelName.TORCHVISION, variant="squeezenet1_1")
    fresh = start_from(built(config), saved(tmp_path, built(config, n_classes=7, seed=1)), classes=CLASSES)
    assert fresh == ("classifier.1.weight", "classifier.1.bias")


@pytest.mark.parametrize(("order", "fresh"), [(CLASSES, ()), (CLASSES[::-1], ("fc.weight", "fc.bias"))])
def test_a_head_of_other_classes_or_another_order_stays_fresh(
    tmp_path: Path, order: tuple[str, ...], fresh: tuple[str, ...]
) -> None:
    path = tmp_path / "start.safetensors"
    metadata = preprocessing_metadata(Normalisation(mean=(0.5,), std=(0.5,)), order)
    save_weights(built(seed=1), path, metadata)
    assert start_from(built(), at(path), classes=CLASSES) == fresh


def test_what_does_not_fit_elsewhere_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    student = built()
    digest = weights_digest(student)
    wide = built(STUDENT.with_overrides(width=3), n_classes=7)
    with pytest.raises(CheckpointError, match=r"does not fit ResNet: \d+ of another shape: conv1\.weight is"):
        start_from(student, saved(tmp_path, wide), classes=CLASSES)
    state = built(n_classes=7).state_dict()
    del state["conv1.weight"]
    with pytest.raises(CheckpointError, match=r"1 missing: conv1\.weight"):
        start_from(student, saved(tmp_path, state), classes=CLASSES)
    assert weights_digest(student) == digest


def test_a_file_of_which_nothing_but_a_head_could_be_taken_is_refused(tmp_path: Path) -> None:
    def linear(units: int, n_classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(units, n_classes))

    with pytest.raises(CheckpointError, match=r"1\.weight is \(7, 65\), the model's is \(4, 64\)"):
        start_from(linear(64, 4), saved(tmp_path, linear(65, 7)), classes=CLASSES)
    with pytest.raises(CheckpointError, match="has nothing but a head for Sequential"):
        start_from(linear(64, 4), saved(tmp_path, linear(64, 7)), classes=CLASSES)


def test_a_file_that_was_changed_since_is_refused(tmp_path: Path) -> None:
    start = saved(tmp_path, built(seed=1))
    saved(tmp_path, built(seed=2))
    with pytest.raises(CheckpointError, match=r"start\.pt was changed after the run began"):
        start_from(built(), start, classes=CLASSES)


def test_a_student_without_a_file_is_known_as_before() -> None:
    plain = {"name": "resnet8", "width": 2}
    student = StudentConfig.from_plain(plain)
    assert student.digest() == student.network.digest() == STUDENT.digest()
    started = StudentConfig.from_plain({**plain, "checkpoint": "start.pt"})
    assert started.network == STUDENT
