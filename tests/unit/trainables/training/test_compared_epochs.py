"""Each epoch of a student is compared with the teacher, and nothing else about its training is changed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.unit.trainables.training.small_courses import (
    SHORT,
    same_weights,
    separable_data,
    small_course,
    small_student,
    small_workbench,
    untimed,
    weights_of,
)
from trainables.config import TrainingConfig
from trainables.config.metrics import AGREEMENT, KL_TO_TEACHER
from trainables.data import TrainingData
from trainables.training.loop import train
from trainables.training.progress.checkpoints import CheckpointFolder
from trainables.training.workbench import Workbench
from trainables.views.normalise import normalise

pytestmark = pytest.mark.usefixtures("one_thread")

MEAN = SHORT.with_overrides(ema=0.9)
FIGURES = {AGREEMENT, KL_TO_TEACHER}

Told = list[tuple[int, dict[str, float]]]


def logits_on_selection(network: torch.nn.Module, data: TrainingData) -> Tensor:
    with torch.no_grad():
        logits: Tensor = network.eval()(normalise(data.selection.images[:], data.mean, data.std))
    return logits


def comparing_workbench() -> Workbench:
    workbench = small_workbench()
    workbench.compare_with(logits_on_selection(small_student(seed=9), workbench.data))
    return workbench


@pytest.mark.parametrize("training", [SHORT, MEAN], ids=["weights", "mean of weights"])
def test_each_epoch_tells_both_figures_and_trains_the_same_weights(training: TrainingConfig) -> None:
    ends = []
    for workbench in (small_workbench(), comparing_workbench()):
        course, told = small_course(training), Told()
        result = train(course, workbench, on_epoch=lambda *news, told=told: told.append(news))
        ends.append((weights_of(course.model), result, told))
    (plain, alone, without), (weights, compared, told) = ends
    assert same_weights(plain, weights)
    assert compared.best_epoch == alone.best_epoch
    for (_, before), (_, now) in zip(without, told, strict=True):
        assert now.keys() - before.keys() == FIGURES
        assert {name: now[name] for name in untimed(before)} == untimed(before)
    # What the best epoch told is what its weights, the mean where there is one, say beside the teacher.
    data, model = separable_data(), small_course().model
    model.load_state_dict(weights)
    own, taught = (logits_on_selection(each, data) for each in (model, small_student(seed=9)))
    same = float((own.argmax(dim=1) == taught.argmax(dim=1)).double().mean())
    shares = taught.double().softmax(dim=1)
    kl = float((shares * (shares.log() - own.double().log_softmax(dim=1))).sum(dim=1).mean())
    assert 0 < same < 1
    assert compared.best[AGREEMENT] == pytest.approx(same)
    assert compared.best[KL_TO_TEACHER] == pytest.approx(kl, rel=1e-4)


def test_a_course_of_an_earlier_version_goes_on_with_figures_from_there_on(tmp_path: Path) -> None:
    """Its state has epochs without them, which are told again as they were."""
    files = CheckpointFolder(tmp_path, spec_digest="a")
    stops = SHORT.with_overrides(checkpoint_every=1)

    def dies(epoch: int, _metrics: dict[str, float]) -> None:
        if epoch == 4:
            raise ConnectionError

    with pytest.raises(ConnectionError):
        train(small_course(stops), small_workbench(), on_epoch=dies, files=files)
    course, told = small_course(stops), Told()
    train(course, comparing_workbench(), on_epoch=lambda *news: told.append(news), files=files, heard=0)
    assert [epoch for epoch, metrics in told if metrics.keys() >= FIGURES] == [4, 5]
    assert [epoch for epoch, metrics in told if not metrics.keys() & FIGURES] == [1, 2, 3]
    whole = small_course(stops)
    train(whole, small_workbench(), on_epoch=lambda *_: None)
    assert same_weights(weights_of(course.model), weights_of(whole.model))


def test_answers_that_the_device_has_no_room_for_are_brought_there_batch_by_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = comparing_workbench()
    monkeypatch.setattr("trainables.training.workbench.COMPARED_BYTES", 1)
    by_batch = comparing_workbench()
    student = small_student()
    assert by_batch.judge(student, batch_size=7) == held.judge(student, batch_size=7)
    assert held.held_bytes - small_workbench().held_bytes == 30 * 3 * 4
