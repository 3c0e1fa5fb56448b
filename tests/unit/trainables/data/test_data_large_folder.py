"""Image folders that stay in their files: the same images, a digest without decoding, what cannot be read."""

from __future__ import annotations

import hashlib
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.unit.trainables.data.image_folders import SIDE, config_of, picture, write_folder
from trainables.config import DataConfig
from trainables.data import ImageSplit, TrainingData, load_test, load_training
from trainables.data.image_folder import index_folder
from trainables.errors import DataError

GIVEN = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
"""With these nothing is decoded to load a folder."""


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Local scratch of this test's own."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "pictures")


def same_split(one: ImageSplit, other: ImageSplit) -> bool:
    pairs = ((one.images[:], other.images[:]), (one.labels, other.labels), (one.ids, other.ids))
    return all(torch.equal(*pair) for pair in pairs)


def looked_at(config: DataConfig) -> list[tuple[int, int]]:
    told: list[tuple[int, int]] = []
    index_folder(config, lambda done, count: told.append((done, count)))
    return told


def damaged_inside(path: Path) -> None:
    """A PNG whose header and end are sound, and whose pixels are not."""
    picture(1).save(path, format="PNG")
    content = bytearray(path.read_bytes())
    start = content.index(b"IDAT") + 10
    content[start : start + 40] = bytes(40)
    path.write_bytes(content)


@pytest.mark.parametrize("limit", [None, 5])
def test_images_in_files_are_those_of_a_folder_that_is_loaded_whole(root: Path, limit: int | None) -> None:
    in_files = load_training(config_of(root, train_limit=limit))
    whole = load_training(config_of(root, train_limit=limit, memory_gb=1))
    assert in_files.train.files is not None
    assert whole.train.files is None
    assert same_split(in_files.train, whole.train)
    assert same_split(in_files.selection, whole.selection)
    assert (in_files.classes, in_files.mean, in_files.std) == (whole.classes, whole.mean, whole.std)
    assert same_split(load_test(config_of(root)), load_test(config_of(root, memory_gb=1)))


def test_rows_are_decoded_in_the_order_asked_for_and_as_often(root: Path) -> None:
    images = load_training(config_of(root)).train.images
    rows = torch.tensor([7, 0, 7, 3])
    assert torch.equal(images[rows], images[:][rows])
    assert images[rows[:0]].shape == (0, 3, SIDE, SIDE)


def test_a_part_stays_in_its_files_when_its_pixels_take_more_than_the_bound(root: Path) -> None:
    n_bytes = 28 * 3 * SIDE * SIDE
    at_bound = load_training(config_of(root, memory_gb=n_bytes / 1e9))
    below = load_training(config_of(root, memory_gb=(n_bytes - 1) / 1e9))
    assert at_bound.train.files is None
    assert below.train.files is not None
    assert below.train.images.nbytes == len(below.train.ids) * 3 * SIDE * SIDE


def test_a_folder_that_is_loaded_whole_keeps_the_digest_of_its_pixels(root: Path) -> None:
    data = load_training(config_of(root, memory_gb=1))
    digest = hashlib.sha256()
    for tensor in (data.train.images[:], data.train.labels, data.train.ids):
        array = tensor.numpy()
        digest.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
    assert data.digest == digest.hexdigest()


def test_the_digest_needs_no_pixels(root: Path) -> None:
    before = load_training(config_of(root, **GIVEN)).digest
    for path in (root / "train").rglob("*.tif"):
        damaged_inside(path)
    data = load_training(config_of(root, **GIVEN))
    assert data.digest != before
    with pytest.raises(
        DataError, match=r"18 of 18 images cannot be read: .*\.tif \(.*and 13 more; repair or"
    ):
        data.train.images[:]


def test_the_digest_is_of_paths_contents_labels_and_size(root: Path, tmp_path: Path) -> None:
    def digest(**changes: object) -> str:
        return load_training(config_of(root, **GIVEN, **changes)).digest

    first = digest()
    (root / "train/daisy/10.tif").touch()
    assert digest() == first
    assert digest(image_size=SIDE + 1) != first
    assert digest(train_limit=17) != first
    changed = bytearray((root / "train/daisy/10.tif").read_bytes())
    changed[20] ^= 1
    (root / "train/daisy/10.tif").write_bytes(changed)
    second = digest()
    assert second != first
    (root / "train/daisy/10.tif").rename(root / "train/daisy/10a.tif")
    assert digest() not in (first, second)
    third = digest()
    root.rename(tmp_path / "elsewhere")
    root = tmp_path / "elsewhere"
    assert load_training(config_of(root, **GIVEN)).digest == third


def test_a_file_is_looked_at_once_and_again_when_it_has_changed(root: Path) -> None:
    config = config_of(root)
    assert looked_at(config) == [(28, 28)]
    assert looked_at(config) == []
    (root / "train/daisy/2.tif").write_bytes((root / "train/rose/4.tif").read_bytes())
    picture(5).save(root / "train/daisy/0.tif")
    assert looked_at(config) == [(2, 2)]
    assert looked_at(config_of(root, memory_gb=1)) == []
    assert same_split(load_training(config).train, load_training(config_of(root, memory_gb=1)).train)


def test_a_look_that_was_broken_off_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainables.data.folder_index.BLOCK", 10)
    monkeypatch.setattr("trainables.data.folder_index.SAVE_EVERY_S", -1.0)

    def told(done: int, count: int) -> None:
        if done > 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_folder(config_of(root), told)
    assert looked_at(config_of(root)) == [(10, 18), (18, 18)]


def test_a_file_that_could_not_be_used_is_looked_at_again(root: Path) -> None:
    (root / "train/daisy/2.tif").write_bytes(b"")
    assert looked_at(config_of(root)) == [(28, 28)]
    assert looked_at(config_of(root)) == [(1, 1)]


def test_a_damaged_index_is_made_again(root: Path, scratch: Path) -> None:
    before = load_training(config_of(root, **GIVEN)).digest
    (index,) = scratch.rglob("*.npz")
    index.write_bytes(index.read_bytes()[:100])
    assert looked_at(config_of(root)) == [(28, 28)]
    assert load_training(config_of(root, **GIVEN)).digest == before


def test_a_batch_at_a_time_is_held(tmp_path: Path) -> None:
    data = load_training(config_of(write_folder(tmp_path / "many", per_class=80), image_size=128, **GIVEN))
    tracemalloc.start()
    assert sum(len(batch) for batch in data.train.batches(4)) == len(data.train.ids)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < data.train.images.nbytes / 4
    assert peak > 4 * 3 * 128 * 128  # what numpy holds is traced


def test_mean_and_std_of_files_are_measured_on_some_and_remembered(
    root: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainables.data.normalisation.MEASURED_IMAGES", 5)
    first = load_training(config_of(root))
    whole = load_training(config_of(root, memory_gb=1))
    assert first.mean != whole.mean
    assert np.allclose(first.mean, whole.mean, atol=0.1)
    (file,) = scratch.rglob("*-5.json")
    file.write_text(file.read_text().replace("[[", "[[1"))
    again = load_training(config_of(root))
    assert again.mean[0] == float(f"1{first.mean[0]}")
    file.write_text("damaged")
    assert load_training(config_of(root)).mean == first.mean


UNREADABLE = {"daisy/1.tif": b"", "daisy/4.tif": b"no picture", "rose/5.tif": b"II*\0"}


@pytest.fixture
def torn(root: Path) -> Path:
    for name, content in UNREADABLE.items():
        (root / "train" / name).write_bytes(content)
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(root / "train/rose/7.tif")
    return root


@pytest.mark.parametrize("memory_gb", [0, 1])
def test_unreadable_images_are_named_and_counted_and_stop_the_run(torn: Path, memory_gb: float) -> None:
    words = (
        r"4 of 28 images cannot be read: .*daisy/1\.tif \(.*daisy/4\.tif \(.*rose/5\.tif \(.*"
        r"rose/7\.tif \(mode I;16 has more than 8 bits.*set `skip_unreadable: true` to leave them out"
    )
    with pytest.raises(DataError, match=words):
        load_training(config_of(torn, memory_gb=memory_gb))


@pytest.mark.parametrize("memory_gb", [0, 1])
def test_unreadable_images_are_left_out_if_wanted_and_move_no_other(
    root: Path, memory_gb: float, caplog: pytest.LogCaptureFixture
) -> None:
    def load() -> TrainingData:
        return load_training(config_of(root, memory_gb=memory_gb, skip_unreadable=True))

    before = load()
    pixels = [split.images[:] for split in (before.train, before.selection)]
    assert before.left_out == 0
    for name in ("daisy/1.tif", "daisy/10.tif"):  # the first two of the sorted paths
        (root / "train" / name).write_bytes(b"")
    after = load()
    assert after.left_out == 2
    assert "2 of 28 images cannot be read and are left out: " in caplog.text
    assert "daisy/1.tif" in caplog.text
    assert after.digest != before.digest
    splits = ((after.train, before.train), (after.selection, before.selection))
    for (split, whole), images in zip(splits, pixels, strict=True):
        kept = ~torch.isin(whole.ids, torch.tensor([0, 1]))
        assert torch.equal(split.ids, whole.ids[kept])
        assert torch.equal(split.labels, whole.labels[kept])
        assert torch.equal(split.images[:], images[kept])


def test_images_damaged_inside_are_left_out_only_after_they_were_decoded(root: Path) -> None:
    damaged_inside(root / "train/daisy/10.tif")
    assert looked_at(config_of(root)) == [(28, 28)]
    with pytest.raises(DataError, match=r"1 of \d+ images cannot be read: .*daisy/10\.tif"):
        load_training(config_of(root))
    assert looked_at(config_of(root, skip_unreadable=True)) == [(28, 28)]
    assert load_training(config_of(root, skip_unreadable=True)).left_out == 1


def test_leaving_out_is_for_folders() -> None:
    with pytest.raises(ValueError, match="`skip_unreadable` is for data set image_folder"):
        DataConfig.from_plain({"name": "digits", "skip_unreadable": True})


def test_settings_that_nobody_uses_are_not_part_of_what_a_run_is_known_by(root: Path) -> None:
    plain = config_of(root, memory_gb=4).plain()
    assert not {"memory_gb", "skip_unreadable"} & plain.keys()
    assert {"memory_gb", "skip_unreadable"} <= config_of(root, skip_unreadable=True).plain().keys()
    assert DataConfig.from_plain(plain) == config_of(root, memory_gb=4)
