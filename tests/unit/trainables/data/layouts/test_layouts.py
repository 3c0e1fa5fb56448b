"""Every layout gives the same pictures and labels, in memory and in files, and says what it took for what."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit.trainables.data.image_folders import config_of, picture
from tests.unit.trainables.data.layouts import written_layouts
from tests.unit.trainables.data.layouts.written_layouts import CLASSES, LAYOUTS, encoded, samples, write_parts
from trainables.config import DataConfig
from trainables.data import ImageSplit, load_test, load_training
from trainables.data.image_folder import layout_in_words
from trainables.data.inspection import inspect_data
from trainables.data.layouts.recognise import split_in_name
from trainables.data.pictures import read_square
from trainables.data.splits import TrainingData
from trainables.errors import DataError

SIDE = 8


@pytest.fixture(autouse=True)
def _scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "pictures"


class _Content:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def read_bytes(self) -> bytes:
        return self.content


def wanted(part: str) -> set[tuple[int, bytes]]:
    """Label and pixels of each sample."""
    return {(label, read_square(_Content(content), SIDE).tobytes()) for content, label in samples(part)}


def found(*splits: ImageSplit) -> list[tuple[int, bytes]]:
    return [
        (int(label), image.numpy().tobytes())
        for split in splits
        for image, label in zip(split.images[:], split.labels, strict=True)
    ]


def splits_of(config: DataConfig) -> tuple[TrainingData, ImageSplit]:
    data = load_training(config)
    return data, load_test(config, data.classes)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("memory_gb", [4, 0])
def test_each_layout_gives_the_same_pictures_labels_and_classes(
    root: Path, layout: str, memory_gb: float
) -> None:
    LAYOUTS[layout](root)
    data, test = splits_of(config_of(root, memory_gb=memory_gb))
    assert (data.train.files is None) is (memory_gb == 4)
    assert data.classes == (("0", "1", "2") if layout == "tars" else CLASSES)  # .cls holds numbers
    in_training = found(data.train, data.selection)
    assert len(in_training) == 24
    assert set(in_training) == wanted("train")
    assert sorted(found(test)) == sorted(wanted("test"))
    assert layout_in_words(config_of(root)).startswith(f"layout {layout.partition(',')[0]}")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("memory_gb", [4, 0])
def test_each_layout_is_the_same_data_again_and_other_data_when_it_is_written_anew(
    root: Path, layout: str, memory_gb: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    LAYOUTS[layout](root)
    config = config_of(root, memory_gb=memory_gb)
    first, second = load_training(config), load_training(config)
    assert first.digest == second.digest
    assert torch.equal(first.train.ids, second.train.ids)
    shutil.rmtree(root)
    changed = [(encoded(picture(700 + row)), label) for row, (_, label) in enumerate(samples("train"))]
    monkeypatch.setattr(
        written_layouts, "samples", lambda part: changed if part == "train" else samples(part)
    )
    LAYOUTS[layout](root)
    assert load_training(config).digest != first.digest


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_is_inspected_without_a_problem_and_says_what_it_is(root: Path, layout: str) -> None:
    LAYOUTS[layout](root)
    inspection = inspect_data(config_of(root, memory_gb=4), lambda *_: None)
    assert inspection.problems == []
    assert inspection.leaks == ()
    assert inspection.notes[0].startswith(f"data: layout {layout.partition(',')[0]}")


def test_todays_layout_goes_before_whatever_lies_beside_it(root: Path) -> None:
    write_parts(root)
    before = load_training(config_of(root)).digest
    (root / "labels.csv").write_text("path,label\n")
    (root / "train-000.tar").write_bytes(b"")
    (root / "val" / "cat").mkdir(parents=True)
    assert load_training(config_of(root)).digest == before
    words = layout_in_words(config_of(root))
    assert words.endswith("; test/ is the test part; val/ is not read")


def write_classes(root: Path, count: int = 40) -> None:
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for index in range(count):
            (root / name / f"{index}.png").write_bytes(encoded(picture(100 * label + index)))


@pytest.mark.parametrize("memory_gb", [4, 0])
def test_a_folder_without_a_split_has_a_test_part_cut_off_by_name(root: Path, memory_gb: float) -> None:
    write_classes(root)
    config = config_of(root, memory_gb=memory_gb, test_fraction=0.25)
    data, test = splits_of(config)
    n_test = len(test.labels)
    assert 15 <= n_test <= 45
    assert len(data.train.labels) + len(data.selection.labels) == 120 - n_test
    everything = found(data.train, data.selection, test)
    assert len(set(everything)) == 120
    assert f"no test part, so {n_test} of 120 images are set apart to test, by the hash" in layout_in_words(
        config
    )
    before = set(found(test))
    for name in CLASSES:
        (root / name / "0a.png").write_bytes(encoded(picture(999)))
    data, test = splits_of(config)
    assert before <= set(found(test))
    assert set(everything) - before <= set(found(data.train, data.selection))


def test_the_cut_is_the_same_on_every_machine(root: Path) -> None:
    write_classes(root, 10)
    test = load_test(config_of(root, memory_gb=4))
    whole = [read_square(root / name / f"{index}.png", SIDE) for name in CLASSES for index in range(10)]
    rows = [
        next(row for row, pixels in enumerate(whole) if np.array_equal(pixels, image.numpy()))
        for image in test.images[:]
    ]
    assert rows == CUT


CUT = [0, 1, 4, 17, 25, 27, 28]


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if not name.startswith("parts")])
def test_any_layout_without_a_test_part_has_one_cut_off(root: Path, layout: str) -> None:
    LAYOUTS[layout](root)
    for path in sorted(root.rglob("*test*")):
        if path.suffix in {".tar", ".parquet"}:
            path.unlink()
    for manifest in root.glob("labels.*"):
        manifest.write_text("".join(line for line in manifest.open() if "test" not in line))
    if (listed := root / "dataset_dict.json").exists():
        listed.write_text('{"splits": ["train"]}')
    data, test = splits_of(config_of(root, memory_gb=4, test_fraction=0.3))
    assert set(found(data.train, data.selection, test)) == wanted("train")
    assert 0 < len(test.labels) < 24


def test_what_could_be_several_layouts_is_refused_and_a_field_decides(root: Path) -> None:
    write_classes(root, 5)
    (root / "labels.csv").write_text(
        "path,label\n" + "".join(f"cat/{i}.png,{'ab'[i % 2]}\n" for i in range(5))
    )
    with pytest.raises(
        DataError, match=r"several layouts of images: manifest \(labels\.csv\); classes \(cat, dog, owl\)"
    ):
        load_training(config_of(root))
    assert load_training(config_of(root, layout="classes", test_fraction=0.1)).classes == CLASSES
    for how in ({"layout": "manifest"}, {"manifest": "labels.csv"}):
        assert load_training(config_of(root, test_fraction=0.1, **how)).classes == ("a", "b")
    with pytest.raises(
        DataError, match="has not the layout parquet; what is there looks like: manifest, classes"
    ):
        load_training(config_of(root, layout="parquet"))


def test_a_manifest_that_is_not_there_and_compressed_tars_are_named(root: Path) -> None:
    root.mkdir()
    (root / "train.tar.gz").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"holds compressed tars \(train\.tar\.gz\).* unpack them to \.tar files"
    ):
        load_training(config_of(root))
    with pytest.raises(DataError, match=r"`manifest` .*/all\.csv is no file"):
        load_training(config_of(root, manifest="all.csv"))


def test_classes_that_one_part_lacks_are_named_and_keep_their_numbers(root: Path) -> None:
    LAYOUTS["manifest, csv"](root)
    manifest = root / "labels.csv"
    manifest.write_text("".join(line for line in manifest.open() if "dog,test" not in line))
    inspection = inspect_data(config_of(root, memory_gb=4), lambda *_: None)
    assert inspection.problems == []
    assert "data: 1 of 3 classes have no test sample: dog" in inspection.notes
    assert set(load_test(config_of(root)).labels.tolist()) == {0, 2}
    manifest.write_text("".join(line for line in manifest.open() if "owl,train" not in line))
    inspection = inspect_data(config_of(root, memory_gb=4), lambda *_: None)
    assert "['owl'] (1) are not among the 2 classes of the training part" in str(inspection.problems[0])


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("data/train-00000-of-00002.parquet", "train"),
        ("imagenet_val_000.tar", "val"),
        ("validation/0.parquet", "val"),
        ("Testing.csv", "test"),
        ("latest.csv", None),
        ("constraint-0.tar", None),
    ],
)
def test_a_word_in_a_files_name_tells_its_split(name: str, split: str | None) -> None:
    assert split_in_name(name) == split


def test_shards_of_which_some_tell_no_split_are_named(root: Path) -> None:
    LAYOUTS["tars"](root)
    (root / "test-000000.tar").rename(root / "more.tar")
    with pytest.raises(DataError, match=r"these do not: more\.tar \(of 4 files\)"):
        load_training(config_of(root))


@pytest.mark.parametrize("fields", [{"layout": "tars"}, {"manifest": "a.csv"}, {"test_fraction": 0.3}])
def test_fields_of_image_folders_are_refused_elsewhere(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(fields))}` is for data set image_folder"):
        DataConfig.from_plain({"name": "digits", **fields})


def test_fields_at_their_defaults_are_in_no_fingerprint(root: Path) -> None:
    added = {"layout", "manifest", "image_column", "label_column", "test_fraction"}
    assert added.isdisjoint(config_of(root).plain())
    assert added <= set(DataConfig.model_fields)
