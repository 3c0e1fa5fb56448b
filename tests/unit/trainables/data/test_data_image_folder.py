"""A user's own pictures: order, size, and what is wrong with a folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from trainables.config.data import DataConfig, DataName, SplitFacts
from trainables.data import load_test, load_training
from trainables.data.resizing import resized, squared
from trainables.data.splits import split_facts
from trainables.errors import DataError


def config_of(root: Path, side: int = 8) -> DataConfig:
    return DataConfig(name=DataName.IMAGE_FOLDER, root=str(root), image_size=side, selection_fraction=0.3)


def picture(seed: int, width: int = 12, height: int = 10) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of six pictures to train on and two to test, written out of order."""
    for part, count in (("train", 6), ("test", 2)):
        for name in ("rose", "daisy"):
            target = tmp_path / part / name
            target.mkdir(parents=True)
            for index in reversed(range(count)):
                picture(index + 10 * (name == "rose")).save(target / f"{index}.png")
    return tmp_path


def test_ids_are_positions_in_the_sorted_paths(folder: Path) -> None:
    data = load_training(config_of(folder))
    assert data.classes == ("daisy", "rose")
    for split in (data.train, data.selection):
        for image, label, sample in zip(split.images[:], split.labels, split.ids, strict=True):
            expected = picture(int(sample) if sample < 6 else int(sample) + 4)
            assert int(label) == int(sample >= 6)
            assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(squared(expected, 8)))


def test_the_test_part_is_read_from_its_own_folder(folder: Path) -> None:
    test = load_test(config_of(folder))
    assert test.labels.tolist() == [0, 0, 1, 1]
    assert test.images.shape == (4, 3, 8, 8)


def test_training_does_not_look_at_the_test_folder(folder: Path) -> None:
    (folder / "test" / "rose" / "0.png").write_text("damaged")
    (folder / "test" / "tulip").mkdir()
    assert len(load_training(config_of(folder)).classes) == 2


def test_grey_palette_and_transparent_pictures_become_rgb(folder: Path) -> None:
    for index, mode in enumerate(("L", "P", "RGBA", "CMYK", "1")):
        picture(index).convert(mode).save(folder / "train" / "daisy" / f"{index}.tif")
    assert load_training(config_of(folder)).train.images.shape[1:] == (3, 8, 8)


def test_unreadable_pictures_are_named_together(folder: Path) -> None:
    whole = (folder / "train" / "rose" / "3.png").read_bytes()
    (folder / "train" / "rose" / "3.png").write_bytes(whole[: len(whole) // 2])
    (folder / "train" / "daisy" / "1.png").write_text("not a picture")
    with pytest.raises(DataError, match=r"2 of 12 images cannot be read: .*daisy/1\.png .*rose/3\.png "):
        load_training(config_of(folder))


def test_pictures_of_more_than_eight_bits_are_refused(folder: Path) -> None:
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(folder / "train" / "daisy" / "0.png")
    with pytest.raises(DataError, match=r"daisy/0\.png \(mode I;16 has more than 8 bits"):
        load_training(config_of(folder))


def test_other_files_are_passed_over(folder: Path) -> None:
    (folder / "train" / "notes.txt").write_text("x")
    (folder / "train" / "daisy" / ".hidden.png").write_text("x")
    (folder / "train" / "daisy" / "readme.md").write_text("x")
    (folder / "train" / ".cache").mkdir()
    data = load_training(config_of(folder))
    assert len(data.train.ids) + len(data.selection.ids) == 12


STRANGE = (b"caf\xe9", b"two\nlines", b"a b", b"#1", b"\xff\xfe", "\u00e9t\u00e9".encode(), b"\x1b[2J")


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("memory_gb", [4, 0])
def test_names_of_any_bytes_are_read_and_classes_are_text_that_records_can_hold(
    folder: Path, name: bytes, memory_gb: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    config = config_of(folder).with_overrides(memory_gb=memory_gb)
    before = load_training(config).train.images[:]
    for part in ("train", "test"):
        inside = folder / part / "rose"
        (inside / "0.png").rename(inside / os.fsdecode(b"0" + name + b".png"))
        inside.rename(inside.parent / os.fsdecode(b"s" + name))
    data = load_training(config)
    assert torch.equal(data.train.images[:], before)
    (own,) = (shown for shown in data.classes if shown != "daisy")
    assert own.isprintable()
    assert own == "s" + name.decode("utf-8", "backslashreplace").replace("\n", "\\n").replace("\x1b", "\\x1b")
    facts = split_facts(data)
    assert SplitFacts.model_validate_json(facts.model_dump_json()) == facts
    assert load_test(config, data.classes).labels.tolist() == [0, 0, 1, 1]


def test_a_fault_of_a_file_of_any_name_is_one_line_that_records_can_hold(folder: Path) -> None:
    (folder / "train" / "rose" / os.fsdecode(b"caf\xe9\n.png")).write_bytes(b"")
    with pytest.raises(DataError, match=r"rose/caf\\xe9\\n\.png ") as told:
        load_training(config_of(folder))
    assert str(told.value).isprintable()
    assert str(told.value).encode()


def test_two_folders_that_are_written_alike_are_refused(folder: Path) -> None:
    for part in ("train", "test"):
        (folder / part / "rose").rename(folder / part / r"\xe9")
        (folder / part / "daisy").rename(folder / part / os.fsdecode(b"\xe9"))
    with pytest.raises(DataError, match="two class folders are both written"):
        load_training(config_of(folder))


def test_a_class_without_pictures_is_named(folder: Path) -> None:
    (folder / "train" / "tulip").mkdir()
    with pytest.raises(DataError, match=r"train/tulip holds no image"):
        load_training(config_of(folder))


def test_test_classes_other_than_train_are_named(folder: Path) -> None:
    (folder / "test" / "rose").rename(folder / "test" / "tulip")
    with pytest.raises(DataError, match=r"missing \['rose'\] \(1\), unknown \['tulip'\] \(1\)"):
        load_test(config_of(folder))


def test_a_link_to_a_folder_of_images_is_followed_and_a_circle_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "test" / "rose").rename(tmp_path / "elsewhere")
    (folder / "train" / "rose" / "linked").symlink_to(tmp_path / "elsewhere")
    data = load_training(config_of(folder))
    assert len(data.train.ids) + len(data.selection.ids) == 12 + 2
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"back links to .*elsewhere, which holds the link itself"):
        load_training(config_of(folder))


def test_a_link_that_leads_nowhere_is_an_unreadable_image(folder: Path) -> None:
    (folder / "train" / "rose" / "gone.png").symlink_to("/not/mounted/gone.png")
    with pytest.raises(DataError, match=r"1 of \d+ images cannot be read: .*rose/gone\.png"):
        load_training(config_of(folder))


def test_one_class_is_too_few(folder: Path) -> None:
    for path in (folder / "train" / "rose").iterdir():
        path.unlink()
    (folder / "train" / "rose").rmdir()
    with pytest.raises(DataError, match=r"has 1 class \(daisy\); a classifier needs two"):
        load_training(config_of(folder))


@pytest.mark.parametrize("missing", [".", "train"])
def test_a_missing_folder_says_which_layout_is_expected(tmp_path: Path, missing: str) -> None:
    root = tmp_path / "pictures"
    if missing == "train":
        root.mkdir()
    with pytest.raises(DataError, match=r"pictures.*expected train/<class>/<image> and test/<class>/<image>"):
        load_training(config_of(root))


@pytest.mark.parametrize(("width", "height"), [(37, 20), (20, 37), (8, 30), (5, 5), (16, 16)])
def test_squares_are_those_of_torchvision(width: int, height: int) -> None:
    image = picture(3, width, height)
    expected = functional.center_crop(functional.resize(image, [16]), [16])
    assert np.array_equal(np.asarray(squared(image, 16)), np.asarray(expected))


@pytest.mark.parametrize("n_channels", [1, 2, 3, 4])
def test_a_batch_is_resized_channel_by_channel(n_channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, n_channels, 9, 12), dtype=torch.uint8, generator=generator)
    result = resized(images, 6)
    assert result.shape == (5, n_channels, 6, 6)
    for sample in range(5):
        for channel in range(n_channels):
            plane = squared(Image.fromarray(images[sample, channel].numpy()), 6)
            assert np.array_equal(result[sample, channel].numpy(), np.asarray(plane))


def test_images_of_the_right_size_are_left_alone() -> None:
    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    assert resized(images, 8) is images
