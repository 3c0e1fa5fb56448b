"""Teachers that are trained with branches, or with a student's classifier, not by the labels alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.unit.trainables.training.small_courses import same_weights, untimed
from trainables.config import (
    DataConfig,
    DataName,
    KeptNetwork,
    ModelConfig,
    ModelName,
    TrainingConfig,
    ViewsConfig,
)
from trainables.config.objective_base import Preparation
from trainables.config.representation.preparation import PreparedTraining
from trainables.data import load_training
from trainables.errors import ConfigError
from trainables.models import build_model
from trainables.models.embedding import classifier_of
from trainables.models.weights import load_weights
from trainables.teacher.loading import prepared_teacher
from trainables.training.train_teacher import TeacherFacts, TeacherRequest, make_teacher

DATA = DataConfig(name=DataName.DIGITS, train_limit=60)
TEACHER = ModelConfig(name=ModelName.RESNET8, width=8)
STUDENT = ModelConfig(name=ModelName.MLP, width=32)
TRAINING = TrainingConfig(epochs=4, batch_size=20, lr=0.05, checkpoint_every=2)

Told = list[tuple[int, dict[str, float]]]


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def request_for(
    prepared: PreparedTraining | None, folder: Path, *, student: ModelConfig = STUDENT
) -> TeacherRequest:
    is_shared = prepared is PreparedTraining.STUDENT_CLASSIFIER
    return TeacherRequest(
        data=DATA,
        model=TEACHER,
        checkpoint=None,
        training=TRAINING,
        views=ViewsConfig(),
        seed=11,
        folder=str(folder),
        prepared=prepared,
        student=student if is_shared else None,
        student_training=TRAINING.with_overrides(epochs=3) if is_shared else None,
    )


def weights_of(facts: TeacherFacts) -> dict[str, Tensor]:
    model = build_model(TEACHER, n_classes=10, in_channels=1)
    load_weights(model, Path(str(facts.weights)))
    return model.state_dict()


@pytest.mark.parametrize("prepared", list(PreparedTraining))
def test_another_training_makes_another_teacher(prepared: PreparedTraining, tmp_path: Path) -> None:
    plain = make_teacher(request_for(None, tmp_path / "plain"), lambda *_: None)
    other = make_teacher(request_for(prepared, tmp_path / "other"), lambda *_: None)
    assert plain.fingerprint != other.fingerprint
    assert plain.prepared == ()


@pytest.mark.parametrize("prepared", list(PreparedTraining))
def test_one_that_was_killed_goes_on_to_the_same_weights(prepared: PreparedTraining, tmp_path: Path) -> None:
    whole, told = Told(), Told()
    uninterrupted = make_teacher(request_for(prepared, tmp_path / "whole"), lambda *news: whole.append(news))
    request = request_for(prepared, tmp_path / "killed")
    last = whole[-1][0]

    def die(epoch: int, _: dict[str, float]) -> None:
        if epoch == last:
            raise ConnectionError

    with pytest.raises(ConnectionError):
        make_teacher(request, die)
    again = make_teacher(request, lambda *news: told.append(news))
    assert [epoch for epoch, _ in whole] == list(range(1, last + 1))
    assert [epoch for epoch, _ in told] == [last - 1, last]
    assert [untimed(metrics) for _, metrics in told] == [untimed(metrics) for _, metrics in whole[-2:]]
    assert same_weights(weights_of(again), weights_of(uninterrupted))
    assert [p.sha256 for p in again.prepared] == [p.sha256 for p in uninterrupted.prepared]


def test_branches_learn_together_with_the_teacher(tmp_path: Path) -> None:
    told = Told()
    facts = make_teacher(
        request_for(PreparedTraining.JOINT_BRANCHES, tmp_path / "joint"), lambda *news: told.append(news)
    )
    assert [part.kind for part in facts.prepared] == [Preparation.BRANCHES]
    assert {"train/ce", "train/branch1", "train/branch3"} <= told[0][1].keys()
    for name in ("train/loss", "train/branch1"):
        assert told[-1][1][name] < told[0][1][name]
    kept = KeptNetwork(model=TEACHER, weights=str(facts.weights), prepared=facts.prepared)
    prepared = prepared_teacher(kept, load_training(DATA))
    assert same_weights(prepared.get_submodule("base").state_dict(), weights_of(facts))


def test_the_teacher_has_the_students_classifier_to_the_bit(tmp_path: Path) -> None:
    told = Told()
    facts = make_teacher(
        request_for(PreparedTraining.STUDENT_CLASSIFIER, tmp_path / "shared"), lambda *news: told.append(news)
    )
    assert [epoch for epoch, _ in told] == [1, 2, 3, 4, 5, 6, 7]  # the student's three, then its own
    (file,) = (tmp_path / "shared" / "student").glob("*.safetensors")
    student = build_model(STUDENT, n_classes=10, in_channels=1)
    load_weights(student, file)
    given = classifier_of(student, 10).state_dict()
    found = weights_of(facts)
    assert torch.equal(found["fc.weight"], given["weight"])
    assert torch.equal(found["fc.bias"], given["bias"])
    assert told[-1][1]["train/loss"] < told[3][1]["train/loss"]  # the rest of it learns


def test_a_student_of_another_width_has_no_classifier_for_the_teacher(tmp_path: Path) -> None:
    student = ModelConfig(name=ModelName.MLP, width=7)
    request = request_for(PreparedTraining.STUDENT_CLASSIFIER, tmp_path, student=student)
    with pytest.raises(ConfigError, match="takes 7 numbers where the teacher's takes 32"):
        make_teacher(request, lambda *_: None)
