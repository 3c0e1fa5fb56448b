"""A teacher is prepared: parts beside it learn, it stays, and whoever asks it hears of both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.unit.trainables.training.small_courses import same_weights, untimed
from trainables.config import (
    DataConfig,
    DataName,
    KeptNetwork,
    ModelConfig,
    ModelName,
    OnlineSpec,
    TrainingConfig,
    ViewsConfig,
)
from trainables.config.objective_base import Preparation
from trainables.config.representation.preparation import PreparedPart
from trainables.data import load_training
from trainables.errors import CacheError, CheckpointError
from trainables.local_files import file_sha256
from trainables.models import build_model
from trainables.models.features import FeatureTap
from trainables.models.weights import count_parameters, save_weights
from trainables.teacher.loading import kept_fingerprint, load_teacher, online_teacher
from trainables.training.course import Course, TrainingResult
from trainables.training.loop import train
from trainables.training.prepare_teacher import PreparationRequest, prepare_teacher

DATA = DataConfig(name=DataName.DIGITS, train_limit=60)
SHAPE = (1, 8, 8)
CPU = torch.device("cpu")
KINDS = (Preparation.SS_HEAD, Preparation.BRANCHES)

Told = list[tuple[int, dict[str, float]]]


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def teacher(tmp_path: Path) -> KeptNetwork:
    """A small residual network, with statistics that a step in training mode would change."""
    return kept(ModelConfig(name=ModelName.RESNET8, width=4), tmp_path)


def kept(config: ModelConfig, folder: Path) -> KeptNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = build_model(config, n_classes=10, in_channels=1)
    save_weights(model, folder / "teacher.safetensors", {})
    return KeptNetwork(model=config, weights=str(folder / "teacher.safetensors"))


def request_for(
    kind: Preparation, network: KeptNetwork, folder: Path, *, epochs: int = 4
) -> PreparationRequest:
    return PreparationRequest(
        kind=kind,
        network=network,
        fingerprint="f" * 64,
        data=DATA,
        training=TrainingConfig(epochs=epochs, batch_size=20, lr=0.1, checkpoint_every=2),
        views=ViewsConfig(),
        seed=5,
        folder=str(folder),
    )


def asked(network: KeptNetwork, *parts: PreparedPart) -> nn.Module:
    prepared = network.with_overrides(prepared=parts)
    return online_teacher(OnlineSpec(network=prepared, batch_size=8), load_training(DATA)).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_the_part_learns_and_the_teacher_stays(
    kind: Preparation, teacher: KeptNetwork, tmp_path: Path
) -> None:
    before, told = file_sha256(Path(teacher.weights)), Told()
    part = prepare_teacher(request_for(kind, teacher, tmp_path / "part"), lambda *news: told.append(news))
    assert [epoch for epoch, _ in told] == [1, 2, 3, 4]
    assert told[-1][1]["train/loss"] < told[0][1]["train/loss"]
    assert len({metrics["selection/accuracy"] for _, metrics in told}) == 1
    assert file_sha256(Path(teacher.weights)) == before
    assert [path.name for path in (tmp_path / "part").iterdir()] == [f"{kind}.safetensors"]
    assert Path(part.weights).parent == tmp_path / "part"


@pytest.mark.parametrize("kind", KINDS)
def test_every_bit_of_the_teacher_is_as_it_was(
    kind: Preparation, teacher: KeptNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    courses: list[Course] = []

    def seen(course: Course, *arguments: Any, **more: Any) -> TrainingResult:
        courses.append(course)
        return train(course, *arguments, **more)

    monkeypatch.setattr("trainables.training.prepare_teacher.train", seen)
    prepare_teacher(request_for(kind, teacher, tmp_path / "part"), lambda *_: None)
    base = courses[0].model.get_submodule("base")
    own = load_teacher(teacher, load_training(DATA))
    assert same_weights(base.state_dict(), own.state_dict())
    assert all(parameter.grad is None for parameter in base.parameters())


def die_in_epoch_four(request: PreparationRequest) -> None:
    def die(epoch: int, _: dict[str, float]) -> None:
        if epoch == 4:
            raise ConnectionError

    with pytest.raises(ConnectionError):
        prepare_teacher(request, die)


@pytest.mark.parametrize("kind", KINDS)
def test_a_preparation_that_was_killed_goes_on_to_the_same_weights(
    kind: Preparation, teacher: KeptNetwork, tmp_path: Path
) -> None:
    whole, told = Told(), Told()
    uninterrupted = prepare_teacher(
        request_for(kind, teacher, tmp_path / "whole"), lambda *news: whole.append(news)
    )
    request = request_for(kind, teacher, tmp_path / "killed")
    die_in_epoch_four(request)
    again = prepare_teacher(request, lambda *news: told.append(news))
    assert [epoch for epoch, _ in told] == [3, 4]
    assert [untimed(metrics) for _, metrics in told] == [untimed(metrics) for _, metrics in whole[2:]]
    assert again.sha256 == uninterrupted.sha256


def test_a_prepared_teacher_answers_as_before_and_gives_what_its_parts_make(
    teacher: KeptNetwork, tmp_path: Path
) -> None:
    parts = [
        prepare_teacher(request_for(kind, teacher, tmp_path / kind, epochs=1), lambda *_: None)
        for kind in KINDS
    ]
    plain, prepared = load_teacher(teacher, load_training(DATA)).eval(), asked(teacher, *parts)
    shown = torch.randn(3, *SHAPE)
    names = ("ss_head", "branch1", "branch3", "embedding", "stage2")
    tap = FeatureTap(prepared, names, n_classes=10, input_shape=SHAPE, device=CPU, error=CacheError)
    with torch.inference_mode():
        logits, features = tap.during(lambda: prepared(shown))
        assert torch.equal(logits, plain(shown))
        assert torch.equal(prepared(shown), logits)
        _, own = FeatureTap(
            plain, ("embedding", "stage2"), n_classes=10, input_shape=SHAPE, device=CPU
        ).during(lambda: plain(shown))
        assert torch.equal(features["ss_head"], prepared.get_submodule("parts.ss_head")(own["embedding"]))
    assert torch.equal(features["stage2"], own["stage2"])
    assert tap.shapes["ss_head"] == tap.shapes["embedding"] == (16,)
    assert tap.shapes["branch1"] == tap.shapes["branch3"] == (40,)
    assert kept_fingerprint(teacher, prepared) == kept_fingerprint(teacher, plain)
    assert count_parameters(load_teacher(teacher.with_overrides(prepared=parts), load_training(DATA))) == (
        count_parameters(plain)
    )


def test_parts_run_where_somebody_listens_alone(teacher: KeptNetwork, tmp_path: Path) -> None:
    part = prepare_teacher(
        request_for(Preparation.SS_HEAD, teacher, tmp_path / "part", epochs=1), lambda *_: None
    )
    prepared: Any = asked(teacher, part)
    tap = FeatureTap(prepared, ("ss_head",), n_classes=10, input_shape=SHAPE, device=CPU)
    head = prepared.parts.ss_head
    calls: list[int] = []
    forward = head.forward

    def counted(given: Tensor) -> Tensor:
        calls.append(len(given))
        answer: Tensor = forward(given)
        return answer

    head.forward = counted
    prepared(torch.randn(3, *SHAPE))
    assert calls == []
    tap.during(lambda: prepared(torch.randn(2, *SHAPE)))
    assert calls == [2]


def test_what_a_teacher_is_prepared_with_hangs_on_all_that_its_weights_do(
    teacher: KeptNetwork, tmp_path: Path
) -> None:
    request = request_for(Preparation.SS_HEAD, teacher, tmp_path)
    same = request.with_overrides(threads=3, folder="elsewhere")
    others = [
        request.with_overrides(fingerprint="e" * 64),
        request.with_overrides(seed=6),
        request.with_overrides(kind=Preparation.BRANCHES),
        request.with_overrides(training=request.training.with_overrides(lr=0.2)),
    ]
    assert same.key() == request.key()
    assert len({request.key(), *(other.key() for other in others)}) == 1 + len(others)


def test_a_teacher_without_maps_has_no_branches(tmp_path: Path) -> None:
    network = kept(ModelConfig(name=ModelName.MLP, width=8), tmp_path)
    with pytest.raises(CacheError, match="Mlp has no feature 'stage1'; it has embedding"):
        prepare_teacher(request_for(Preparation.BRANCHES, network, tmp_path / "part"), lambda *_: None)


def test_a_file_that_holds_other_weights_is_refused(teacher: KeptNetwork, tmp_path: Path) -> None:
    request = request_for(Preparation.SS_HEAD, teacher, tmp_path / "part", epochs=1)
    part = prepare_teacher(request, lambda *_: None)
    other = prepare_teacher(request.with_overrides(seed=6), lambda *_: None)  # in the same place
    assert other.weights == part.weights
    with pytest.raises(CheckpointError, match="does not hold what the teacher was prepared with"):
        asked(teacher, part)
    asked(teacher, other)
