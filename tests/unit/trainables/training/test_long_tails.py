"""Long-tailed splits, class-balanced epochs, and the cosine head: what CBD's recipe is made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainables.config import DataConfig, DataName, ModelConfig, TrainingConfig
from trainables.config.training import Sampling
from trainables.data import load_training
from trainables.data.long_tail import long_tailed
from trainables.errors import ConfigError, TrialFailed
from trainables.models import build_model
from trainables.models.cosine import CosineClassifier, with_cosine_head
from trainables.models.embedding import cosine_head_of
from trainables.training.epoch_order import epoch_rows


def counts(labels: Tensor, n_classes: int) -> list[int]:
    return torch.bincount(labels, minlength=n_classes).tolist()


def test_the_classes_of_a_long_tail_fall_by_a_constant_factor_from_first_to_last() -> None:
    labels = np.repeat(np.arange(5), 400)
    ids = np.arange(2000) * 3
    kept = long_tailed(ids, labels, n_classes=5, imbalance=16.0)
    sizes = np.bincount(labels[kept // 3])
    assert sizes.tolist() == [400, 200, 100, 50, 25]
    assert np.all(np.diff(kept) > 0)


def test_the_last_class_keeps_all_of_a_whole_share() -> None:
    labels = np.repeat(np.arange(3), 588)
    kept = long_tailed(np.arange(3 * 588), labels, n_classes=3, imbalance=49.0)
    assert np.bincount(labels[kept]).tolist() == [588, 84, 12]


def test_a_smaller_class_keeps_what_it_has_and_the_smallest_at_least_one() -> None:
    labels = np.array([0] * 100 + [1] * 3 + [2] * 100)
    kept = long_tailed(np.arange(203), labels, n_classes=3, imbalance=1e4)
    assert np.bincount(labels[kept]).tolist() == [100, 1, 1]


def test_samples_that_are_added_move_none_of_a_class_that_keeps_as_many() -> None:
    labels = np.repeat(np.arange(2), 100)
    before = long_tailed(np.arange(200), labels, n_classes=2, imbalance=10.0)
    other = long_tailed(np.arange(200), labels, n_classes=2, imbalance=5.0)
    assert set(before) < set(other)


def test_a_data_set_gets_a_long_tail_in_its_training_split_alone() -> None:
    plain, tailed = (
        load_training(DataConfig(name=DataName.DIGITS, imbalance=imbalance)) for imbalance in (1.0, 20.0)
    )
    assert torch.equal(plain.selection.ids, tailed.selection.ids)
    assert set(tailed.train.ids.tolist()) < set(plain.train.ids.tolist())
    sizes = counts(tailed.train.labels, 10)
    assert sizes[0] / sizes[-1] == pytest.approx(20, rel=0.15)
    assert sizes == sorted(sizes, reverse=True)
    assert "imbalance" not in DataConfig(name=DataName.DIGITS).plain()


LABELS = torch.tensor([0] * 60 + [1] * 25 + [3] * 5)


def rows(sampling: Sampling, seed: int = 0) -> Tensor:
    return epoch_rows(LABELS, sampling, torch.Generator().manual_seed(seed))


def test_a_natural_epoch_has_each_sample_once_in_the_order_that_it_always_had() -> None:
    expected = torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(0))
    assert torch.equal(rows(Sampling.NATURAL), expected)
    assert "sampling" not in TrainingConfig().plain()


def test_a_balanced_epoch_has_each_class_equally_often_and_repeats_as_little_as_it_can() -> None:
    drawn = rows(Sampling.CLASS_BALANCED)
    assert counts(LABELS[drawn], 4) == [30, 30, 0, 30]
    times = torch.bincount(drawn, minlength=len(LABELS))
    assert set(times[:60].tolist()) == {0, 1}
    assert set(times[60:85].tolist()) == {1, 2}
    assert set(times[85:].tolist()) == {6}
    assert torch.equal(drawn, rows(Sampling.CLASS_BALANCED))
    assert not torch.equal(drawn, rows(Sampling.CLASS_BALANCED, seed=1))


def test_what_cannot_be_divided_goes_to_some_classes() -> None:
    drawn = epoch_rows(LABELS[:-1], Sampling.CLASS_BALANCED, torch.Generator().manual_seed(0))
    assert len(drawn) == 89
    assert sorted(counts(LABELS[drawn], 4)) == [0, 29, 30, 30]


NAMES = [
    {"name": "mlp"},
    {"name": "convnet", "width": 4},
    {"name": "resnet8"},
    {"name": "wrn_16_1"},
    {"name": "vgg8"},
]


@pytest.mark.parametrize("fields", NAMES, ids=lambda fields: str(fields["name"]))
def test_a_cosine_head_takes_the_place_of_the_linear_classifier(fields: dict[str, object]) -> None:
    config = ModelConfig.from_plain({**fields, "cosine_head": 24, "resolution": 16})
    model = build_model(config, n_classes=7, in_channels=1)
    images = torch.rand(4, 1, 16, 16)
    given: list[torch.Tensor] = []
    listening = cosine_head_of(model).register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    logits_BC = model(images)
    listening.remove()
    (embedding_BD,) = given
    assert logits_BC.shape == (4, 7)
    assert embedding_BD.shape == (4, 24)
    assert embedding_BD.requires_grad
    assert embedding_BD.min() >= 0
    assert logits_BC.abs().max() <= 20 + 1e-4
    assert not any(isinstance(m, nn.Linear) and m.out_features == 7 for m in model.modules())


def test_the_cosine_classifier_knows_no_lengths() -> None:
    head, embedding_BD = CosineClassifier(8, 3), torch.rand(5, 8)
    before_BC = head(embedding_BD)
    with torch.no_grad():
        head.weight.mul_(torch.tensor([[3.0], [0.1], [50.0]]))
    torch.testing.assert_close(head(4.0 * embedding_BD), before_BC, rtol=1e-4, atol=1e-4)
    assert head(torch.zeros(1, 8)).tolist() == [[0.0, 0.0, 0.0]]


def test_an_exported_cosine_head_gives_the_same_logits() -> None:
    model = build_model(ModelConfig(name="mlp", width=8, cosine_head=6), n_classes=3, in_channels=1).eval()
    images = torch.rand(2, 1, 8, 8)
    exported = torch.export.export(model, (images,)).module()
    torch.testing.assert_close(exported(images), model(images))


def test_networks_without_such_a_classifier_are_refused() -> None:
    with pytest.raises(TrialFailed, match=r"needs a student with a cosine head .* set student.cosine_head"):
        cosine_head_of(nn.Linear(3, 3))
    with pytest.raises(
        ConfigError, match="replaces the linear layer with 5 outputs, and Sequential has none"
    ):
        with_cosine_head(nn.Sequential(nn.Linear(3, 3)), 4, 5)
