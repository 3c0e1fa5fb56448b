"""Splits of whole data sets: stable, disjoint, and refused when they cannot be."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from trainables.config.data import DataConfig, DataName
from trainables.data import load_test, load_training
from trainables.data.normalisation import measured
from trainables.data.sources import SOURCES
from trainables.errors import ConfigError, DataError

DIGITS = DataConfig(name=DataName.DIGITS)
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def test_every_name_has_a_source() -> None:
    assert set(SOURCES) == set(DataName)


def test_digits_are_cut_as_they_always_were() -> None:
    data = load_training(DIGITS)
    assert data.selection.ids[:12].tolist() == [0, 5, 8, 10, 14, 17, 18, 22, 33, 34, 35, 42]
    assert data.train.ids[:8].tolist() == [1, 2, 3, 4, 6, 7, 9, 11]
    assert data.train.images.shape == (1146, 1, 8, 8)
    assert data.selection.images.shape == (292, 1, 8, 8)
    assert data.digest == "2ad16e6b2566700db23338baecb3b1231929060bec77340fedf60cc6b7d27442"
    assert data.mean == pytest.approx((0.30520822639701606,), abs=1e-15)
    assert data.std == pytest.approx((0.37612768576252126,), abs=1e-15)
    assert data.classes == tuple("0123456789")


def test_digits_keep_a_fifth_of_each_class_for_the_test() -> None:
    test = load_test(DIGITS)
    assert torch.bincount(test.labels).tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    assert test.labels[:12].tolist() == [2, 7, 8, 0, 1, 3, 8, 1, 4, 5, 5, 1]
    assert test.ids.tolist() == list(range(359))


def test_digits_use_the_whole_range_of_a_byte() -> None:
    test = load_test(DIGITS)
    assert test.images[:].dtype == torch.uint8
    assert np.unique(test.images[:].numpy()).tolist() == [
        *(0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255)
    ]


def test_the_splits_share_no_sample_and_cover_the_training_part() -> None:
    data = load_training(DIGITS)
    together = torch.cat([data.train.ids, data.selection.ids])
    assert sorted(together.tolist()) == list(range(1438))
    for split in (data.train, data.selection):
        assert split.ids.dtype == torch.int64
        assert bool((split.ids.diff() > 0).all())
        assert split.labels.dtype == torch.int64


def test_a_train_limit_shortens_the_train_split_alone() -> None:
    whole = load_training(DIGITS)
    limited = load_training(DIGITS.with_overrides(train_limit=10))
    assert limited.train.ids.tolist() == [246, 415, 429, 552, 641, 698, 988, 1355, 1356, 1368]
    assert torch.equal(limited.selection.ids, whole.selection.ids)
    rows = torch.isin(whole.train.ids, limited.train.ids)
    assert torch.equal(limited.train.images[:], whole.train.images[rows])
    assert limited.digest != whole.digest


def test_a_train_limit_above_the_number_of_samples_keeps_all() -> None:
    assert len(load_training(DIGITS.with_overrides(train_limit=9999)).train.ids) == 1146


def test_an_empty_selection_split_is_refused() -> None:
    with pytest.raises(DataError, match=r"selection_fraction 1e-07 of 1438.* 0 for selection; change the"):
        load_training(DIGITS.with_overrides(selection_fraction=1e-7))


def test_image_size_resizes_every_split() -> None:
    config = DIGITS.with_overrides(image_size=14)
    assert load_training(config).train.images.shape[1:] == (1, 14, 14)
    assert load_training(config).selection.images.shape[1:] == (1, 14, 14)
    assert load_test(config).images.shape[1:] == (1, 14, 14)


def test_mean_and_std_of_the_file_are_taken() -> None:
    data = load_training(DIGITS.with_overrides(mean=(0.5,), std=(0.25,)))
    assert (data.mean, data.std) == ((0.5,), (0.25,))


def test_mean_and_std_for_other_channels_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"`mean` has 3 and `std` 3 values; the images have 1 channels"):
        load_training(DIGITS.with_overrides(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)))


def test_a_std_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"`std` \(0.0,\) must be above 0"):
        load_training(DIGITS.with_overrides(mean=(0.5,), std=(0.0,)))


def test_measured_mean_and_std_are_those_of_numpy() -> None:
    images = torch.randint(
        0, 256, (50, 3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    pixels = images.numpy().astype(np.float64) / 255
    mean, std = measured(images)
    assert mean == pytest.approx(pixels.mean(axis=(0, 2, 3)), rel=1e-12)
    assert std == pytest.approx(pixels.std(axis=(0, 2, 3)), rel=1e-12)


def test_the_std_of_one_colour_is_one_grey_level() -> None:
    assert measured(torch.full((4, 1, 8, 8), 77, dtype=torch.uint8)) == ((77 / 255,), (1 / 255,))


def test_labels_beyond_the_classes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wrongly_labelled.py").write_text(
        "import numpy as np\n"
        "class Images(list):\n"
        "    classes = ['a', 'b']\n"
        "def make(split):\n"
        "    return Images((np.zeros((8, 8), np.uint8), label) for label in (0, 1, 2))\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"train sample 2 has the label 2; with 2 classes, labels are 0 to 1"):
        load_training(DataConfig(factory="wrongly_labelled:make"))
    del sys.modules["wrongly_labelled"]


@pytest.mark.fashion_mnist
@pytest.mark.skipif(
    not FASHION_MNIST.is_dir(), reason=f"no {FASHION_MNIST}: apt-get install dataset-fashion-mnist"
)
def test_fashion_mnist_of_debian_is_cut_as_it_always_was() -> None:
    config = DataConfig(name=DataName.FASHION_MNIST, root=str(FASHION_MNIST))
    data = load_training(config)
    assert data.train.images.shape == (47956, 1, 28, 28)
    assert data.selection.ids[:8].tolist() == [0, 5, 8, 10, 14, 17, 18, 22]
    assert data.digest == "a5795e14e8966abc6f37b1d18eb95216442cedd02367b477f5422d468e979c76"
    # Over all 60,000 images the widely quoted values are 0.2860 and 0.3530.
    assert data.mean == pytest.approx((0.2860,), abs=5e-4)
    assert data.std == pytest.approx((0.3530,), abs=5e-4)
    test = load_test(config)
    assert torch.bincount(test.labels).tolist() == [1000] * 10
    assert test.labels[:5].tolist() == [9, 2, 1, 1, 6]
