"""What is kept of single answers: against counts by hand and scikit-learn, and its file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix
from torch import Tensor, nn

from tests.synthetic_answers import SyntheticAnswers, own_bins
from trainables.data import ImageSplit
from trainables.errors import DataError
from trainables.evaluation.answers_file import KeptAnswers, read_answers, write_answers
from trainables.evaluation.confusion import Answers, labelled_answers
from trainables.evaluation.disagreement import SIDE, kept_answers, most_confident_disagreements, pictures
from trainables.evaluation.metrics import answers, evaluate

SOME = SyntheticAnswers(images=60, classes=4)


def made(some: SyntheticAnswers = SOME) -> KeptAnswers:
    return kept_answers(some.said(1), some.said(2), some.split, some.names)


def given(classes: list[int], confidences: list[float]) -> Answers:
    zeros = torch.zeros(len(classes))
    return Answers(zeros.long(), torch.tensor(classes), torch.tensor(confidences), zeros)


def shaped(channels: int, height: int, width: int, rows: int = 3) -> ImageSplit:
    pixels = torch.arange(rows * channels * height * width) % 256
    images = pixels.to(torch.uint8).reshape(rows, channels, height, width)
    return ImageSplit(images, torch.zeros(rows, dtype=torch.int64), torch.arange(rows))


class Brightness(nn.Module):
    """Logits of the mean of each third of an image's rows."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([part.mean(dim=(1, 2, 3)) for part in images.chunk(3, dim=2)], dim=1)


def test_answers_to_a_split_are_those_of_which_the_recorded_figures_are() -> None:
    split = SyntheticAnswers(images=50, classes=3).split
    asked = {"mean": (0.5,) * 3, "std": (0.1,) * 3, "batch_size": 16, "device": torch.device("cpu")}
    model = Brightness().train()
    found = labelled_answers(model, split, **asked)  # type: ignore[arg-type]
    assert model.training
    assert found.labels_N.tolist() == split.labels.tolist()
    assert found.answers_N.tolist() == answers(model, split, **asked).tolist()  # type: ignore[arg-type]
    assert found.figures() == pytest.approx(evaluate(model, split, **asked), abs=1e-6)  # type: ignore[arg-type]


def test_bins_and_classes_are_those_counted_by_hand_and_their_gap_is_the_calibration_error() -> None:
    own, kept = SOME.said(1), made().student
    bins = [(int(n), c, a) for n, c, a in kept.bins_E3.tolist() if n]
    assert bins == [pytest.approx(each, abs=1e-6) for each in own_bins(own.confidence_N, own.correct_N)]
    assert np.isnan(kept.bins_E3[kept.bins_E3[:, 0] == 0, 1:]).all()
    ece = sum(n * abs(accuracy - confidence) for n, confidence, accuracy in bins) / SOME.images
    assert kept.figures["ece"] == pytest.approx(ece, abs=1e-6)
    matrix = confusion_matrix(own.labels_N.numpy(), own.answers_N.numpy(), labels=range(SOME.classes))
    assert kept.right_C.tolist() == matrix.diagonal().tolist()
    assert made().images_C.tolist() == matrix.sum(axis=1).tolist()


def test_a_disagreement_is_as_sure_as_the_less_sure_of_the_two() -> None:
    own = given([1, 1, 1, 1, 2], [0.99, 0.9, 0.7, 0.8, 0.8])
    taught = given([1, 2, 2, 2, 0], [0.99, 0.6, 0.9, 0.8, 0.9])
    assert most_confident_disagreements(own, taught).tolist() == [3, 4, 2, 1]  # of equal ones the first
    assert most_confident_disagreements(own, taught, most=2).tolist() == [3, 4]
    assert most_confident_disagreements(own, own).tolist() == []


@pytest.mark.parametrize("channels", [1, 3])
def test_small_pictures_are_the_pixels_themselves(channels: int) -> None:
    split = shaped(channels, 8, 6)
    found = pictures(split, torch.tensor([2, 0]))
    assert found.tolist() == split.images[torch.tensor([2, 0])].permute(0, 2, 3, 1).tolist()


def test_large_pictures_are_made_smaller_and_keep_their_shape() -> None:
    colour = torch.tensor([10, 100, 200], dtype=torch.uint8).reshape(1, 3, 1, 1)
    split = replace(shaped(3, 1, 1), images=colour.repeat(3, 1, 4 * SIDE, 2 * SIDE))
    found = pictures(split, torch.tensor([1]))
    assert found.shape == (1, SIDE, SIDE // 2, 3)
    assert set(map(tuple, found.reshape(-1, 3).tolist())) == {(10, 100, 200)}


def test_images_of_other_channels_have_no_pictures() -> None:
    assert len(pictures(shaped(2, 8, 8), torch.tensor([0]))) == 0
    kept = made(SyntheticAnswers(images=60, classes=4, channels=5))
    assert len(kept.shown_K) > 0
    assert len(kept.pictures_KHWD) == 0


def test_without_a_teacher_nobody_is_disagreed_with(tmp_path: Path) -> None:
    kept = kept_answers(SOME.said(1), None, SOME.split, SOME.names)
    write_answers(tmp_path / "a.npz", kept)
    found = read_answers(tmp_path / "a.npz")
    assert (found.teacher, len(found.shown_K), len(found.pictures_KHWD)) == (None, 0, 0)
    assert found.student.figures == kept.student.figures


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    kept = made()
    write_answers(tmp_path / "below" / "a.npz", kept)
    found = read_answers(tmp_path / "below" / "a.npz")
    assert found.classes == kept.classes
    for name in ("ids_N", "labels_N", "images_C", "shown_K", "pictures_KHWD"):
        assert np.array_equal(getattr(found, name), getattr(kept, name))
    assert found.teacher is not None
    assert kept.teacher is not None
    for one, other in ((found.student, kept.student), (found.teacher, kept.teacher)):
        assert one.figures == other.figures
        assert np.array_equal(one.bins_E3, other.bins_E3, equal_nan=True)
        assert np.array_equal(one.confidence_N, other.confidence_N)
    assert [path.name for path in (tmp_path / "below").iterdir()] == ["a.npz"]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"version": np.array(7)}, "version 7, and this release reads version 1"),
        ({"labels": np.zeros(3, np.int64)}, "different lengths"),
        ({"student_answers": np.full(60, 4)}, "not all of its 4 classes"),
        ({"shown": np.array([60])}, "samples that it does not have"),
        ({"pictures": np.zeros((1, 2, 2, 3), np.uint8)}, "pictures are none of its samples"),
        ({"teacher_bins": np.zeros((15, 2))}, "bins of confidence"),
        ({"classes": np.array([{}], dtype=object)}, "allow_pickle=False"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, changed: dict[str, Any], why: str) -> None:
    path = tmp_path / "a.npz"
    write_answers(path, made())
    with np.load(path) as whole:
        arrays = {**whole, **changed}
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=why):
        read_answers(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"\x93NUMPY"])
def test_a_damaged_file_is_told_by_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz holds no answers that this version can read"):
        read_answers(path)
