"""The teacher's answers to the selection split: kept with who gave them to what, and refused otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from trainables.config import Combine, DataConfig, DataName, KeptEnsemble, KeptNetwork, ModelConfig, ModelName
from trainables.config.trial import SelectionAnswers
from trainables.data import TrainingData, load_training
from trainables.errors import CacheError
from trainables.models import build_model
from trainables.models.weights import save_weights
from trainables.teacher.loading import load_teacher
from trainables.teacher.selection_answers import (
    AnswersRequest,
    answers_in,
    are_kept,
    find_answers,
    judged,
    keep_answers,
    read_answers,
)
from trainables.views.normalise import normalise

DATA = DataConfig(name=DataName.DIGITS, train_limit=20)
MODEL = ModelConfig(name=ModelName.MLP, width=8)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return load_training(DATA)


@pytest.fixture
def place(tmp_path: Path, data: TrainingData) -> SelectionAnswers:
    return answers_in(tmp_path / "teacher", teacher="t" * 64, data=data.digest)


def network(folder: Path, seed: int) -> KeptNetwork:
    torch.manual_seed(seed)
    path = folder / f"{seed}.safetensors"
    save_weights(build_model(MODEL, n_classes=10, in_channels=1), path, {})
    return KeptNetwork(model=MODEL, weights=str(path))


def live_answers(kept: KeptNetwork, data: TrainingData) -> Tensor:
    images = normalise(data.selection.images[:], data.mean, data.std)
    with torch.no_grad():
        logits: Tensor = load_teacher(kept, data).eval()(images)
    return logits


def some_logits(data: TrainingData) -> Tensor:
    return torch.randn(len(data.selection.ids), 10, generator=torch.Generator().manual_seed(3))


def test_what_is_kept_is_what_the_live_teacher_says(
    tmp_path: Path, data: TrainingData, place: SelectionAnswers
) -> None:
    kept = network(tmp_path, 1)
    assert not are_kept(place)
    find_answers(AnswersRequest(network=kept, data=DATA, batch_size=64, kept=place))
    assert are_kept(place)
    live_NC = live_answers(kept, data)
    torch.testing.assert_close(read_answers(place, data), live_NC, rtol=1e-5, atol=1e-5)
    found = judged(load_teacher(kept, data), data, batch_size=64, device=torch.device("cpu"))
    assert found.logits_NC is not None
    assert torch.equal(read_answers(place, data), found.logits_NC)
    right = live_NC.argmax(dim=1) == data.selection.labels
    assert found.accuracy == pytest.approx(float(right.double().mean()))
    assert found.chance.right == int(right.sum())


@pytest.mark.parametrize("combine", Combine)
def test_several_teachers_answer_as_the_one_that_objectives_hear(
    tmp_path: Path, data: TrainingData, place: SelectionAnswers, combine: Combine
) -> None:
    members = (network(tmp_path, 1), network(tmp_path, 2))
    together = KeptEnsemble(members=members, shares=(0.25, 0.75), combine=combine)
    find_answers(AnswersRequest(network=together, data=DATA, batch_size=64, kept=place))
    parts = [live_answers(member, data) for member in members]
    if combine is Combine.PROBABILITIES:
        parts = [part.softmax(dim=1) for part in parts]
    mean = 0.25 * parts[0] + 0.75 * parts[1]
    expected = mean if combine is Combine.PROBABILITIES else mean.softmax(dim=1)
    torch.testing.assert_close(read_answers(place, data).softmax(dim=1), expected, rtol=1e-5, atol=1e-6)


def test_answers_of_another_teacher_or_to_other_data_are_refused(
    data: TrainingData, place: SelectionAnswers
) -> None:
    keep_answers(place, some_logits(data), data)
    for field in ("teacher", "data"):
        other = place.with_overrides(**{field: "o" * 64})
        assert not are_kept(other)
        with pytest.raises(
            CacheError, match=r"of another teacher, or of other data; remove the file and run"
        ):
            read_answers(other, data)


def test_answers_to_another_selection_split_are_refused(data: TrainingData, place: SelectionAnswers) -> None:
    keep_answers(place, some_logits(data), data)
    split = data.selection
    fewer = replace(split, images=split.images[:5], labels=split.labels[:5], ids=split.ids[:5])
    moved = replace(split, ids=split.ids + 1)
    for other in (fewer, moved):
        with pytest.raises(CacheError, match="another selection split than these data have"):
            read_answers(place, replace(data, selection=other))


def test_a_damaged_file_is_named_and_counts_as_none(data: TrainingData, place: SelectionAnswers) -> None:
    with pytest.raises(CacheError, match=r"selection_answers\.safetensors, cannot be used: "):
        read_answers(place, data)
    keep_answers(place, some_logits(data), data)
    whole = Path(place.path).read_bytes()
    flipped = bytearray(whole)
    flipped[-9] ^= 1
    for content in (flipped, whole[:-40], whole[:4], b""):
        Path(place.path).write_bytes(content)
        assert not are_kept(place)
        with pytest.raises(CacheError, match=r"cannot be used: .*; remove the file and run again"):
            read_answers(place, data)
    keep_answers(place, some_logits(data), data)
    assert torch.equal(read_answers(place, data), some_logits(data))


def test_answers_that_are_too_many_are_not_kept(
    tmp_path: Path, data: TrainingData, place: SelectionAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = network(tmp_path, 1)
    whole = judged(load_teacher(kept, data), data, batch_size=64, device=torch.device("cpu"))
    limit = len(data.selection.ids) * 10 - 1
    for module in ("teacher.selection_answers", "evaluation.metrics"):
        monkeypatch.setattr(f"trainables.{module}.MAX_LOGITS", limit)
    found = judged(load_teacher(kept, data), data, batch_size=64, device=torch.device("cpu"))
    assert (found.accuracy, found.chance, found.logits_NC) == (whole.accuracy, whole.chance, None)
    keep_answers(place, found.logits_NC, data)
    with pytest.raises(CacheError, match=r"take more than 1 GiB; a smaller data\.selection_fraction"):
        find_answers(AnswersRequest(network=kept, data=DATA, batch_size=64, kept=place))
    assert not are_kept(place)
