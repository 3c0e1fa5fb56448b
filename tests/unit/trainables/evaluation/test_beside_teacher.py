"""A student beside its teacher on a split, against a computation with scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax  # type: ignore[import-untyped]
from torch import Tensor, nn

from trainables.data import ImageSplit
from trainables.errors import TrialFailed
from trainables.evaluation.beside_teacher import BesideTeacher
from trainables.evaluation.metrics import evaluate

N, C = 23, 5
CPU = torch.device("cpu")


@pytest.fixture
def split() -> ImageSplit:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (N, 1, 3, 3), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, C, (N,), generator=generator)
    return ImageSplit(images, labels, torch.arange(N))


@pytest.fixture
def student() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(9, C))


@pytest.fixture
def teacher_NC() -> Tensor:
    """Some sure of one class, some of none."""
    scales_N1 = torch.logspace(-1, 1.5, N).unsqueeze(1)
    return scales_N1 * torch.randn(N, C, generator=torch.Generator().manual_seed(2))


def figures(network: nn.Module, split: ImageSplit, batch_size: int = 7) -> dict[str, float]:
    return evaluate(network, split, mean=(0.4,), std=(0.3,), batch_size=batch_size, device=CPU)


def logits_of(student: nn.Module, split: ImageSplit) -> Tensor:
    with torch.no_grad():
        logits: Tensor = student.eval()((split.images[:] / 255 - 0.4) / 0.3)
    return logits


@pytest.mark.parametrize("batch_size", [1, 7, N, 1000])
@pytest.mark.parametrize("held", [N * C, N * C - 1], ids=["held", "by batch"])
def test_figures_equal_those_of_scipy(
    split: ImageSplit,
    student: nn.Module,
    teacher_NC: Tensor,
    monkeypatch: pytest.MonkeyPatch,
    batch_size: int,
    held: int,
) -> None:
    monkeypatch.setattr("trainables.evaluation.metrics.MAX_LOGITS", held)
    own_NC = logits_of(student, split).double().numpy()
    taught_NC = softmax(teacher_NC.double().numpy(), axis=1)
    expected = {
        "agreement": float(np.mean(own_NC.argmax(axis=1) == taught_NC.argmax(axis=1))),
        "kl_to_teacher": float(rel_entr(taught_NC, softmax(own_NC, axis=1)).sum(axis=1).mean()),
    }
    assert 0 < expected["agreement"] < 1
    beside = BesideTeacher(student, teacher_NC)
    whole = figures(beside, split, batch_size)
    assert beside.figures() == pytest.approx(expected, rel=1e-5)
    assert whole == figures(student, split, batch_size)  # those of the student alone are as they were


def test_a_student_that_says_what_the_teacher_says_agrees_and_does_not_diverge(
    split: ImageSplit, student: nn.Module
) -> None:
    beside = BesideTeacher(student, logits_of(student, split))
    figures(beside, split)
    assert beside.figures() == {"agreement": 1.0, "kl_to_teacher": pytest.approx(0.0, abs=1e-6)}


def test_a_constant_added_to_all_logits_changes_nothing(
    split: ImageSplit, student: nn.Module, teacher_NC: Tensor
) -> None:
    found = []
    for shift in (0.0, 100.0):
        beside = BesideTeacher(student, teacher_NC + shift)
        figures(beside, split)
        found.append(beside.figures())
    assert found[0] == pytest.approx(found[1], rel=1e-4)


class HalfPrecision(nn.Module):
    """Gives logits in bfloat16, as under autocast."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :C].bfloat16()


def test_logits_of_half_precision_are_compared_in_single_precision(
    split: ImageSplit, teacher_NC: Tensor
) -> None:
    own_NC = ((split.images[:] / 255 - 0.4) / 0.3).flatten(1)[:, :C].bfloat16().double().numpy()
    taught_NC = softmax(teacher_NC.double().numpy(), axis=1)
    beside = BesideTeacher(HalfPrecision(), teacher_NC)
    figures(beside, split)
    expected = rel_entr(taught_NC, softmax(own_NC, axis=1)).sum(axis=1).mean()
    assert beside.figures()["kl_to_teacher"] == pytest.approx(float(expected), rel=1e-5)


def test_a_student_whose_logits_are_not_finite_fails_as_it_does_alone(
    split: ImageSplit, student: nn.Sequential, teacher_NC: Tensor
) -> None:
    with torch.no_grad():
        student[2].get_parameter("bias")[0] = float("nan")
    with pytest.raises(TrialFailed, match="logits that are not finite"):
        figures(BesideTeacher(student, teacher_NC), split)


def test_figures_of_a_part_of_the_split_are_refused(
    split: ImageSplit, student: nn.Module, teacher_NC: Tensor
) -> None:
    beside = BesideTeacher(student, teacher_NC)
    beside(split.images[:4].float())
    with pytest.raises(ValueError, match="4 answers of the student beside 23 of the teacher"):
        beside.figures()
