"""What people's folders and tables really look like: nothing of the test part is trained on by mistake."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.trainables.data.image_folders import config_of, picture
from tests.unit.trainables.data.layouts.written_layouts import encoded, write_tar
from trainables.config.data import SourcePart, UnlabelledConfig
from trainables.data import load_training
from trainables.data.image_folder import file_hashes
from trainables.data.layouts.listing import list_images
from trainables.errors import DataError


@pytest.fixture(autouse=True)
def _scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (folder := tmp_path / "pictures").mkdir()
    return folder


def pictures(root: Path, *names: str) -> None:
    for index, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(picture(index)))


@pytest.mark.parametrize("header", ["path,label,Split", "Path,Label,SUBSET"])
def test_a_column_of_splits_is_found_in_any_case(root: Path, header: str) -> None:
    pictures(root, "0.png", "1.png", "2.png")
    (root / "all.csv").write_text(f"{header}\n0.png,a,train\n1.png,b,train\n2.png,a,test\n")
    images = {part: list(list_images(config_of(root), part).images.names) for part in SourcePart}
    assert images == {SourcePart.TRAIN: ["0.png", "1.png"], SourcePart.TEST: ["2.png"]}


@pytest.mark.parametrize(
    "names",
    [
        ("Training/a/0.png", "Training/b/1.png", "Testing/a/2.png", "Testing/b/3.png"),
        ("Train/a/0.png", "Test/a/1.png"),
        ("train/a0.png", "test/a1.png"),
    ],
)
def test_folders_that_are_named_as_parts_are_no_classes(root: Path, names: tuple[str, ...]) -> None:
    pictures(root, *names)
    with pytest.raises(DataError, match=r"named as parts \(T?t?est.*\); call them train/ and test/, with a"):
        list_images(config_of(root), SourcePart.TRAIN)
    by_word = list_images(config_of(root, layout="classes", test_fraction=0.1), SourcePart.TRAIN)
    assert len(by_word.images.classes) == 2


def table(file: Path, columns: dict[str, list[bytes]]) -> None:
    count = len(next(iter(columns.values())))
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns | {"label": ["a", "b"] * (count // 2)}), file)


def test_images_have_the_names_of_the_root_that_is_given(root: Path) -> None:
    for part in ("train", "test"):
        table(root / part / "x.parquet", {"image": [encoded(picture(index)) for index in range(4)]})
    outer = list_images(config_of(root), SourcePart.TRAIN).images.names
    inner = list_images(config_of(root / "train", test_fraction=0.001), SourcePart.TRAIN).images.names
    assert (outer[0], inner[0]) == ("train/x.parquet#0", "x.parquet#0")


def test_another_column_of_images_has_an_index_of_its_own(root: Path) -> None:
    columns = {
        name: [encoded(picture(first + index), "BMP") for index in range(4)]  # all of one size
        for name, first in (("left", 0), ("right", 10))
    }
    table(root / "train.parquet", columns)
    left_N, right_N = (
        file_hashes(config_of(root, image_column=name, test_fraction=0.001), SourcePart.TRAIN)
        for name in columns
    )
    assert not np.isin(left_N, right_N).any()


def test_files_that_a_table_names_are_not_followed(root: Path, tmp_path: Path) -> None:
    (secret := tmp_path / "elsewhere.png").write_bytes(encoded(picture(1)))
    for path in ("0.png", str(secret)):
        pictures(root, "0.png")
        cells = [{"bytes": None, "path": path}] * 2
        pq.write_table(pa.table({"image": cells, "label": ["a", "b"]}), root / "train.parquet")
        with pytest.raises(DataError, match=r"holds no bytes of an image, only the path .* \(embed them\)"):
            load_training(config_of(root))


def test_a_manifest_may_lie_outside_of_the_root(root: Path, tmp_path: Path) -> None:
    pictures(tmp_path, *(f"{index}.png" for index in range(4)))
    (manifest := tmp_path / "all.csv").write_text("path,label\n0.png,a\n1.png,b\n2.png,a\n3.png,b\n")
    listed = list_images(config_of(root, manifest=str(manifest), test_fraction=0.001), SourcePart.TRAIN)
    assert listed.images.path(0) == tmp_path / "0.png"


def test_a_file_of_a_saved_data_set_that_is_gone_is_named(root: Path) -> None:
    (root / "dataset_info.json").write_text("{}")
    (root / "state.json").write_text('{"_data_files": [{"filename": "gone.arrow"}]}')
    with pytest.raises(DataError, match=r"a file of .*pictures cannot be read: .*gone\.arrow"):
        list_images(config_of(root), SourcePart.TRAIN)


def test_a_zero_byte_in_a_name_within_a_tar_is_told(root: Path) -> None:
    write_tar(root / "train.tar", {"a\0\u00e9.png": encoded(picture(1)), "a\0\u00e9.cls": b"0"})
    with pytest.raises(DataError, match=r"train\.tar holds a\\x00.*\.png, a name with a zero byte"):
        list_images(config_of(root), SourcePart.TRAIN)


@pytest.mark.parametrize("folder", ["unlabelled", "unlabelled/inner", "train/a"])
def test_a_class_is_no_folder_of_unlabelled_images(root: Path, folder: str) -> None:
    names: tuple[str, ...] = ("cat/0.png", "dog/1.png", "unlabelled/inner/2.png")
    if folder == "train/a":
        names = ("train/a/0.png", "train/b/1.png", "test/a/2.png", "test/b/3.png")
    pictures(root, *names)
    config = config_of(root, unlabelled=UnlabelledConfig(root=str(root / folder)), test_fraction=0.001)
    with pytest.raises(DataError, match=r"`unlabelled\.root` .* a folder of labelled images that is a class"):
        list_images(config, SourcePart.TRAIN)
    assert len(list_images(config.labelled, SourcePart.TRAIN).images.classes) >= 2


def test_unlabelled_images_may_lie_beside_the_parts(root: Path) -> None:
    pictures(root, "train/a/0.png", "test/a/1.png", "more/2.png")
    config = config_of(root, unlabelled=UnlabelledConfig(root=str(root / "more")))
    assert list(list_images(config, SourcePart.TRAIN).images.names) == ["a/0.png"]


def test_two_manifests_may_tell_their_own_splits_too(root: Path) -> None:
    pictures(root, *(f"{index}.png" for index in range(5)))
    header = "path,label,split\n"
    (root / "train.csv").write_text(f"{header}0.png,a,train\n1.png,b,train\n2.png,b,val\n")
    (root / "test.csv").write_text(f"{header}3.png,a,test\n4.png,b,test\n")
    images = {part: list(list_images(config_of(root), part).images.names) for part in SourcePart}
    assert images == {SourcePart.TRAIN: ["0.png", "1.png"], SourcePart.TEST: ["3.png", "4.png"]}
    (root / "test.csv").write_text(f"{header}3.png,a,test\n4.png,b,train\n")
    with pytest.raises(DataError, match=r"test\.csv is of the part test by its name, .* splits test, train"):
        list_images(config_of(root), SourcePart.TRAIN)
