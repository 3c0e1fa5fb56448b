"""A user's own data set: the images that are taken, and the index that is named otherwise."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from trainables.config.data import DataConfig
from trainables.data import load_test, load_training
from trainables.errors import ConfigError, DataError

MODULE = "user_data_for_tests"
Provide = Callable[[Any], DataConfig]

COLOURS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3
GREYS = COLOURS[:, :, 0]


@pytest.fixture
def provide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Provide:
    """The configuration of a factory, in a module on disk, that returns the given object."""
    (tmp_path / f"{MODULE}.py").write_text(
        "given = None\ndef make(split, side=0):\n    return given(split, side)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)

    def give(dataset: Any) -> DataConfig:
        module: Any = importlib.import_module(MODULE)
        module.given = dataset if callable(dataset) else lambda split, side: dataset
        return DataConfig(factory=f"{MODULE}:make", selection_fraction=0.5)

    return give


def samples(*images: object, labels: tuple[object, ...] = (0, 1)) -> list[tuple[object, object]]:
    """Forty samples that go round the images and labels."""
    return [(images[index % len(images)], labels[index % len(labels)]) for index in range(40)]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        pytest.param(Image.fromarray(COLOURS), COLOURS.transpose(2, 0, 1), id="pillow colour"),
        pytest.param(Image.fromarray(GREYS), GREYS[None], id="pillow grey"),
        pytest.param(Image.fromarray(COLOURS).convert("RGBA"), COLOURS.transpose(2, 0, 1), id="pillow alpha"),
        pytest.param(torch.from_numpy(COLOURS).permute(2, 0, 1), COLOURS.transpose(2, 0, 1), id="tensor CHW"),
        pytest.param(torch.from_numpy(GREYS.copy()), GREYS[None], id="tensor HW"),
        pytest.param(COLOURS, COLOURS.transpose(2, 0, 1), id="numpy HWC"),
        pytest.param(GREYS, GREYS[None], id="numpy HW"),
        pytest.param(torch.from_numpy(GREYS.copy())[None] / 255, GREYS[None], id="float tensor"),
        pytest.param(COLOURS / 255, COLOURS.transpose(2, 0, 1), id="float numpy"),
        pytest.param(
            (torch.arange(24).reshape(1, 4, 6) % 2).bfloat16(),
            np.arange(24).reshape(1, 4, 6) % 2 * 255,
            id="bf16",
        ),
    ],
)
def test_every_allowed_image_becomes_bytes(provide: Provide, image: object, expected: Any) -> None:
    data = load_training(provide(samples(image)))
    assert data.train.images[:].dtype == torch.uint8
    assert np.array_equal(data.train.images[:][0].numpy(), expected)


@pytest.mark.parametrize(
    "one", [1, np.int64(1), np.uint8(1), torch.tensor(1), torch.tensor([1]), np.array(1)]
)
def test_every_kind_of_integer_is_a_label(provide: Provide, one: object) -> None:
    data = load_training(provide(samples(GREYS, labels=(0, one))))
    assert torch.equal(data.train.labels, data.train.ids % 2)


@pytest.mark.parametrize(
    "wrong", [1.0, True, "1", None, torch.tensor(1.0), torch.tensor([1, 0]), np.float32(1)]
)
def test_other_labels_are_refused_with_their_index(provide: Provide, wrong: object) -> None:
    with pytest.raises(DataError, match=r"split train, index 1: the label is .*labels are integers"):
        load_training(provide(samples(GREYS, labels=(0, wrong))))


def test_a_negative_label_is_refused_with_its_index(provide: Provide) -> None:
    with pytest.raises(DataError, match="train sample 1 has the label -1"):
        load_training(provide(samples(GREYS, labels=(0, -1))))


def test_an_image_of_another_size_is_named(provide: Provide) -> None:
    with pytest.raises(DataError, match=r"index 1: the image is 1x5x6, the first one is 1x4x6"):
        load_training(provide(samples(GREYS, np.zeros((5, 6), np.uint8))))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("cat.png", r"the image is a str; allowed"),
        (torch.zeros(5, 8, 8), r"the image has the shape \(5, 8, 8\); allowed"),
        (np.zeros((3, 8, 8), np.uint8), r"the image has the shape \(3, 8, 8\); allowed"),
        (torch.zeros(1, 1, 8, 8), r"the image has the shape \(1, 1, 8, 8\); allowed"),
        (torch.zeros(1, 0, 8), r"the image has the shape \(1, 0, 8\); allowed"),
        (torch.zeros(1, 8, 8, dtype=torch.int64), r"of type int64; allowed"),
        (torch.full((1, 8, 8), 1.5), r"float pixels from 1.5 to 1.5, not in \[0, 1\]; leave normalising"),
        (torch.full((1, 8, 8), float("nan")), r"float pixels from nan to nan"),
        (Image.fromarray(np.zeros((8, 8), np.uint16)), r"mode I;16 has more than 8 bits"),
    ],
)
def test_other_images_are_refused_with_their_index(provide: Provide, image: object, message: str) -> None:
    with pytest.raises(DataError, match=rf"split train, index 0: .*{message}"):
        load_training(provide(samples(image)))


def test_a_sample_that_is_no_pair_is_named(provide: Provide) -> None:
    with pytest.raises(DataError, match="index 0: got a ndarray; a sample is a pair"):
        load_training(provide([GREYS] * 4))


def test_what_is_no_data_set_is_refused(provide: Provide) -> None:
    with pytest.raises(DataError, match="got a list_iterator; return a torch Dataset"):
        load_training(provide(lambda split, side: iter([])))


def test_an_empty_data_set_is_refused(provide: Provide) -> None:
    with pytest.raises(DataError, match="the data set is empty"):
        load_training(provide([]))


def test_the_factory_is_told_the_part_and_the_arguments(provide: Provide) -> None:
    config = provide(
        lambda split, side: samples(np.full((side, side), 7 if split == "test" else 9, np.uint8))
    ).with_overrides(arguments={"side": 8})
    assert load_training(config).train.images[:][0, 0, 0].tolist() == [9] * 8
    assert load_test(config).images[:][0, 0, 0].tolist() == [7] * 8
    assert load_test(config).images.shape == (40, 1, 8, 8)


def test_unknown_arguments_are_refused(provide: Provide) -> None:
    with pytest.raises(ConfigError, match="unexpected keyword argument 'width'"):
        load_training(provide(samples(GREYS)).with_overrides(arguments={"width": 8}))


def test_class_names_come_from_the_data_set(provide: Provide) -> None:
    class Named(list[Any]):
        classes = ("cat", "dog", "owl")

    assert load_training(provide(Named(samples(GREYS)))).classes == ("cat", "dog", "owl")


def test_without_class_names_the_labels_are_the_names(provide: Provide) -> None:
    assert load_training(provide(samples(GREYS, labels=(0, 1, 2)))).classes == ("0", "1", "2")


def test_image_size_squares_the_user_images(provide: Provide) -> None:
    config = provide(samples(COLOURS)).with_overrides(image_size=8)
    assert load_training(config).train.images.shape[1:] == (3, 8, 8)
