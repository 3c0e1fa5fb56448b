from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.unit.trainables.training.small_courses import same_weights, untimed
from trainables.config import DataConfig, DataName, ModelConfig, ModelName, TrainingConfig, ViewsConfig
from trainables.data import load_training
from trainables.data.splits import split_facts
from trainables.errors import CheckpointError
from trainables.models import build_model
from trainables.models.weights import count_parameters, load_weights
from trainables.teacher.selection_answers import NAME
from trainables.training.train_teacher import TeacherRequest, make_teacher

DATA = DataConfig(name=DataName.DIGITS, train_limit=100)
MODEL = ModelConfig(name=ModelName.MLP, width=16)

Told = list[tuple[int, dict[str, float]]]


@pytest.fixture
def request_of_five_epochs(tmp_path: Path) -> TeacherRequest:
    return TeacherRequest(
        data=DATA,
        model=MODEL,
        checkpoint=None,
        training=TrainingConfig(epochs=5, batch_size=20, checkpoint_every=2),
        views=ViewsConfig(),
        seed=11,
        folder=str(tmp_path / "teacher"),
    )


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def die_in_epoch_four(request: TeacherRequest) -> None:
    def die(epoch: int, _: dict[str, float]) -> None:
        if epoch == 4:
            raise ConnectionError

    with pytest.raises(ConnectionError):
        make_teacher(request, die)


def weights_in(path: str) -> dict[str, torch.Tensor]:
    model = build_model(MODEL, n_classes=10, in_channels=1)
    load_weights(model, Path(path))
    return model.state_dict()


def test_a_trained_teacher_is_known_by_its_weights(request_of_five_epochs: TeacherRequest) -> None:
    told = Told()
    facts = make_teacher(request_of_five_epochs, lambda *news: told.append(news))
    assert [epoch for epoch, _ in told] == [1, 2, 3, 4, 5]
    assert facts.selection_accuracy == max(metrics["selection/accuracy"] for _, metrics in told)
    assert facts.params == count_parameters(build_model(MODEL, n_classes=10, in_channels=1))
    assert facts.split == split_facts(load_training(DATA))
    files = {path.name for path in Path(request_of_five_epochs.folder).iterdir()}
    assert files == {"teacher.safetensors", NAME}


def test_whether_a_teacher_keeps_its_answers_makes_it_no_other_one(
    request_of_five_epochs: TeacherRequest,
) -> None:
    die_in_epoch_four(request_of_five_epochs)
    told = Told()
    make_teacher(request_of_five_epochs.with_overrides(keeps_answers=False), lambda *news: told.append(news))
    assert [epoch for epoch, _ in told] == [3, 4, 5]
    assert [path.name for path in Path(request_of_five_epochs.folder).iterdir()] == ["teacher.safetensors"]


def test_a_teacher_whose_training_was_killed_goes_on_to_the_same_weights(
    request_of_five_epochs: TeacherRequest, tmp_path: Path
) -> None:
    whole = make_teacher(request_of_five_epochs, lambda *_: None)
    request = request_of_five_epochs.with_overrides(folder=str(tmp_path / "killed"))
    die_in_epoch_four(request)
    told = Told()
    again = make_teacher(request, lambda *news: told.append(news))
    assert [epoch for epoch, _ in told] == [3, 4, 5]
    assert again.weights is not None
    assert whole.weights is not None
    assert same_weights(weights_in(again.weights), weights_in(whole.weights))
    assert again.fingerprint == whole.fingerprint


def test_a_teacher_goes_on_in_a_folder_that_was_moved_and_with_more_threads(
    request_of_five_epochs: TeacherRequest, tmp_path: Path
) -> None:
    die_in_epoch_four(request_of_five_epochs)
    Path(request_of_five_epochs.folder).rename(tmp_path / "moved")
    told = Told()
    make_teacher(
        request_of_five_epochs.with_overrides(folder=str(tmp_path / "moved"), threads=2),
        lambda *news: told.append(news),
    )
    assert [epoch for epoch, _ in told] == [3, 4, 5]


def test_a_teacher_is_loaded_from_its_checkpoint(
    request_of_five_epochs: TeacherRequest, tmp_path: Path
) -> None:
    trained = make_teacher(request_of_five_epochs, lambda *_: None)
    request = request_of_five_epochs.with_overrides(
        checkpoint=trained.weights, folder=str(tmp_path / "loaded"), seed=12
    )
    told = Told()
    loaded = make_teacher(request, lambda *news: told.append(news))
    assert told == []
    assert loaded == trained.with_overrides(weights=str(tmp_path / "loaded" / "teacher.safetensors"))


def test_another_seed_makes_another_teacher(request_of_five_epochs: TeacherRequest, tmp_path: Path) -> None:
    one = make_teacher(request_of_five_epochs, lambda *_: None)
    two = make_teacher(
        request_of_five_epochs.with_overrides(seed=12, folder=str(tmp_path / "other")), lambda *_: None
    )
    assert one.fingerprint != two.fingerprint


def test_a_checkpoint_of_another_network_is_refused(
    request_of_five_epochs: TeacherRequest, tmp_path: Path
) -> None:
    trained = make_teacher(request_of_five_epochs, lambda *_: None)
    request = request_of_five_epochs.with_overrides(
        checkpoint=trained.weights, model=MODEL.with_overrides(width=17), folder=str(tmp_path / "other")
    )
    with pytest.raises(CheckpointError, match="does not fit"):
        make_teacher(request, lambda *_: None)


def test_metrics_are_the_same_whatever_the_machine_did_before(
    request_of_five_epochs: TeacherRequest, tmp_path: Path
) -> None:
    runs: list[Told] = []
    for number in range(2):
        torch.manual_seed(number)
        told = Told()
        request = request_of_five_epochs.with_overrides(folder=str(tmp_path / str(number)))
        make_teacher(request, lambda epoch, m, told=told: told.append((epoch, untimed(m))))  # type: ignore[misc]
        runs.append(told)
    assert runs[0] == runs[1]
