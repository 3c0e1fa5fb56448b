"""What is wrong with a manifest, a tar or a table is one line that names the place and what to do."""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.trainables.data.image_folders import config_of, picture
from tests.unit.trainables.data.layouts.written_layouts import (
    CLASSES,
    LAYOUTS,
    as_datasets,
    encoded,
    samples,
    write_tar,
)
from trainables.data import load_test, load_training
from trainables.data.layouts.manifest import read_manifest
from trainables.data.layouts.tables import read_tables, saved_parts
from trainables.data.layouts.tars import read_tars
from trainables.errors import DataError, StillhouseError

IMAGE = encoded(picture(1))


@pytest.fixture(autouse=True)
def _scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (folder := tmp_path / "pictures").mkdir()
    return folder


def pictures(root: Path, count: int = 12) -> None:
    for index in range(count):
        (root / f"{index}.png").write_bytes(encoded(picture(index)))


def csv_of(root: Path, text: str, name: str = "labels.csv") -> Path:
    pictures(root)
    (file := root / name).write_bytes(os.fsencode(text))
    return file


HALF = "".join(f"{index}.png,{'ab'[index % 2]}\n" for index in range(12))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"labels\.csv holds no line; write path and label"),
        ("path,label\n", r"labels\.csv holds no line"),
        (
            "one,label\n1.png,a\n",
            r"no column that is named as the path .* there are: one, label; say which with `image_",
        ),
        ("path,kind\n1.png,a\n", r"no column that is named as the label .* say which with `label_column`"),
        ("path,label,class\n1.png,a,b\n", r"several columns that may hold the label .*path, label, class"),
        ("path,label\n1.png\n", r"line 2: `label` is None; write the class as a name or a whole number"),
        ("path,label\n,a\n", r"line 2: `path` is ''; write the path of an image"),
        ("path,label\n1.png,a\n2.png, \n", r"line 3: `label` is ' '"),
        ("path,label,split\n1.png,a,learn\n", r"line 2: `split` is 'learn'; allowed: train, training, test"),
        ("path,label,split\n1.png,a,test\n", r"no line is of the split train; those there are: test"),
        (
            "path,label\n1.png,a\n2.png,b\n1.png,b\n",
            r"line 2 says 'a' and line 4 'b' of 1\.png; an image has one label",
        ),
        ('path,label\n"1.png,a\n', r"cannot be read as a manifest"),
        (
            f"path,label,split\n{HALF}".replace("a\n", "a,train\n").replace("b\n", "b,test\n"),
            r"\['b'\] \(1\) are not among the 1 classes",
        ),
    ],
)
def test_a_line_of_a_manifest_that_cannot_be_is_named(root: Path, text: str, says: str) -> None:
    csv_of(root, text)
    with pytest.raises(DataError, match=says):
        load_test(config_of(root))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1, 2]\n", r"line 1: '\[1, 2\]' is no JSON object with path and label"),
        ('{"path": "1.png", "label": "a"}\n{"path":', r"line 2: no JSON: "),
        ("[" * 100_000, "line 1: no JSON: RecursionError"),
        ('{"path": 1, "label": "a"}', "line 1: `path` is 1; write the path of an image"),
        (
            '{"path": "1.png", "label": 1.5}',
            "line 1: `label` is 1.5; write the class as a name or a whole number",
        ),
        ('{"path": "1.png", "label": ["a"]}', r"line 1: `label` is \['a'\]"),
        (r'{"path": "\ud800.png", "label": "a"}', r"line 1: '\\ud800\.png' is the path of no file"),
        (r'{"path": "1.png", "label": "\ud800"}', "line 1: `label` is "),
        (r'{"path": "a\u0000b", "label": "a"}', "line 1: `path` is "),
    ],
)
def test_a_line_of_json_that_cannot_be_is_named(root: Path, text: str, says: str) -> None:
    csv_of(root, text, "labels.jsonl")
    with pytest.raises(DataError, match=says):
        load_training(config_of(root))


def test_files_that_a_manifest_names_and_are_not_there_are_unreadable_images(root: Path) -> None:
    csv_of(root, f"path,label\n{HALF}gone.png,a\nlabels.csv,b\n")
    with pytest.raises(DataError, match=r"2 of 1[0-9] images cannot be read: .*gone\.png .*labels\.csv \("):
        load_training(config_of(root, test_fraction=0.01))
    assert load_training(config_of(root, test_fraction=0.01, skip_unreadable=True)).left_out == 2


def test_a_pipe_in_a_manifest_is_refused_and_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "pipe.png")
    csv_of(root, "path,label\npipe.png,a\n")
    with pytest.raises(DataError, match=r"pipe\.png is named by the manifest and is no file"):
        load_training(config_of(root))


def test_a_manifest_holds_names_of_any_bytes_other_separators_and_a_mark_at_its_start(root: Path) -> None:
    strange = [
        os.fsdecode(name) for name in (b"caf\xe9.png", b"two words #1.png", "\u00e9t\u00e9.png".encode())
    ]
    for index, name in enumerate(strange):
        (root / name).write_bytes(encoded(picture(50 + index)))
    labels = (os.fsdecode(b"\xe9"), "b", "b")
    lines = "".join(f"{name};{label}\n" for name, label in zip(strange, labels, strict=True))
    csv_of(root, f"\ufefffile_name;category\n{HALF.replace(',', ';')}{lines}".replace("\n", "\r\n"))
    data = load_training(config_of(root, memory_gb=4, test_fraction=0.001))
    assert data.classes == ("a", "b", "\\xe9")
    assert len(data.train.labels) + len(data.selection.labels) == 15


def test_numbers_are_classes_in_the_order_of_their_size_and_names_in_that_of_text(root: Path) -> None:
    csv_of(root, "path,label\n" + "".join(f"{index}.png,{(10, 9, 2)[index % 3]}\n" for index in range(12)))
    assert load_training(config_of(root, test_fraction=0.01)).classes == ("2", "9", "10")
    csv_of(root, "path,label\n" + "".join(f"{index}.png,{(10, 'b', 2)[index % 3]}\n" for index in range(12)))
    assert load_training(config_of(root, test_fraction=0.01)).classes == ("10", "2", "b")


def test_columns_are_named_where_their_names_are_not_plain(root: Path) -> None:
    csv_of(root, "x,label,class\n" + HALF.replace(",a", ",a,c").replace(",b", ",b,d"))
    fields = {"image_column": "x", "label_column": "class", "test_fraction": 0.01}
    assert load_training(config_of(root, **fields)).classes == ("c", "d")
    with pytest.raises(DataError, match=r"has no column 'y' \(`image_column`\); there are: x, label, class"):
        load_training(config_of(root, image_column="y"))


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"a.png": IMAGE}, r"sample a has no label: neither \.cls nor \.json is among its files \(png\)"),
        ({"a.cls": b"1"}, r"sample a has 0 images among its files \(cls\)"),
        (
            {"a.png": IMAGE, "a.jpg": IMAGE, "a.cls": b"1"},
            r"sample a has 2 images among its files \(png, jpg, cls\)",
        ),
        (
            {"a.png": IMAGE, "a.cls": b""},
            r"sample a: \.cls is ''; write the class as a name or a whole number",
        ),
        ({"a.png": IMAGE, "a.cls": b"\xff"}, r"sample a: \.cls cannot be read"),
        ({"a.png": IMAGE, "a.json": b"{}"}, r"sample a: \.json has no label \(one of cls, label"),
        ({"a.png": IMAGE, "a.json": b"{"}, r"sample a: \.json cannot be read"),
        ({"a.png": IMAGE, "a.json": b'{"label": null}'}, r"sample a: `label` is None"),
        ({"notes": b""}, "its tars hold no sample; each is an image and a .cls"),
    ],
)
def test_a_sample_of_a_tar_that_cannot_be_is_named(root: Path, members: dict[str, bytes], says: str) -> None:
    write_tar(root / "train.tar", members)
    with pytest.raises(DataError, match=says):
        load_training(config_of(root))


def test_tars_hold_labels_as_text_or_json_and_names_of_any_bytes(root: Path) -> None:
    members: dict[str, bytes] = {}
    for index in range(12):
        key = os.fsdecode(f"d.ir/{index} #".encode() + (b"\xe9" if index % 2 else b""))
        label = "ab"[index % 2]
        members |= {f"{key}.seg.PNG" if index == 3 else f"{key}.png": encoded(picture(index))}
        members |= (
            {f"{key}.cls": label.encode()}
            if index < 6
            else {f"{key}.json": json.dumps({"label": label}).encode()}
        )
    write_tar(root / "all.tar", members)
    data = load_training(config_of(root, memory_gb=4, test_fraction=0.01))
    assert data.classes == ("a", "b")
    assert len(data.train.labels) + len(data.selection.labels) >= 11
    (root / "all.tar").write_bytes((root / "all.tar").read_bytes()[:3000])
    with pytest.raises(DataError, match=r"all\.tar cannot be read as an uncompressed tar: "):
        load_training(config_of(root))


def test_a_compressed_tar_by_the_name_of_a_plain_one_is_told(root: Path) -> None:
    write_tar(root / "train.tar", {"a.png": IMAGE, "a.cls": b"1"}, mode="w:gz")
    with pytest.raises(DataError, match=r"train\.tar cannot be read as an uncompressed tar"):
        load_training(config_of(root))


def table_of(root: Path, columns: dict[str, Any], schema: pa.Schema | None = None) -> Path:
    pq.write_table(pa.table(columns, schema=schema), file := root / "train.parquet")
    return file


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (
            {"label": ["a"]},
            r"no column that is named as the image .* there are: none; say which with `image_column`",
        ),
        ({"image": [IMAGE], "x": ["a"]}, r"no column that is named as the label .* there are: image, x"),
        (
            {"image": [None, IMAGE], "label": ["a", "b"]},
            r"row 0 holds no bytes of an image; write the images into",
        ),
        (
            {"image": [{"bytes": None, "path": "gone.png"}], "label": ["a"]},
            r"row 0 holds no bytes of an image, only the path 'gone\.png'; .*\(embed them\)",
        ),
        ({"image": [IMAGE], "label": [1.5]}, r"row 0: `label` is 1\.5; write the class as a name"),
        ({"image": [IMAGE], "label": [None]}, r"row 0: `label` is None"),
        (
            {"one": [IMAGE], "two": [IMAGE], "label": ["a"]},
            r"no column that is named as the image .* one, two",
        ),
    ],
)
def test_a_row_of_a_table_that_cannot_be_is_named(root: Path, columns: dict[str, Any], says: str) -> None:
    table_of(root, columns)
    with pytest.raises(DataError, match=says):
        load_training(config_of(root))


def test_rows_without_a_label_in_a_table_of_classes_are_named(root: Path) -> None:
    (root / "data").mkdir()
    hidden = as_datasets("test").map(lambda _: {"label": -1}, load_from_cache_file=False)
    hidden.to_parquet(root / "data" / "test-0.parquet")
    as_datasets("train").to_parquet(root / "data" / "train-0.parquet")
    with pytest.raises(
        DataError, match=r"row 0: `label` is -1, and there are 3 classes, 0 to 2; take out .* \(a part val"
    ):
        load_test(config_of(root))


def test_classes_of_a_table_keep_their_order_and_those_without_images_their_place(root: Path) -> None:
    own = as_datasets("train").filter(lambda row: row["label"] != 1, load_from_cache_file=False)
    own.to_parquet(root / "train.parquet")
    data = load_training(config_of(root, test_fraction=0.01))
    assert data.classes == CLASSES
    assert set(data.train.labels.tolist()) == {0, 2}


def test_a_packed_file_that_someone_removed_is_made_again(root: Path, tmp_path: Path) -> None:
    LAYOUTS["parquet"](root / "deep")
    before = load_training(config_of(root / "deep")).digest
    for packed in (tmp_path / "scratch").rglob("*-images"):
        packed.unlink()
    assert load_training(config_of(root / "deep")).digest == before
    for table in (tmp_path / "scratch").rglob("*-table.npz"):
        table.write_bytes(b"damaged")
    assert load_training(config_of(root / "deep")).digest == before


@pytest.mark.parametrize(
    ("notes", "says"),
    [
        ({"dataset_dict.json": "[]"}, r"dataset_dict\.json holds no JSON object"),
        ({"dataset_dict.json": "{}"}, r"dataset_dict\.json names no splits"),
        ({"dataset_dict.json": '{"splits": ["test"]}'}, r"test/state\.json cannot be read"),
        ({"dataset_dict.json": '{"splits": ["all"]}'}, r"has the splits all; one must be `train`"),
        ({"state.json": "{}", "dataset_info.json": "{}"}, r"state\.json names no data files"),
        (
            {"state.json": '{"_data_files": [{"filename": "../x.arrow"}]}', "dataset_info.json": "{}"},
            r"state\.json names files that lie elsewhere",
        ),
    ],
)
def test_notes_of_a_saved_data_set_that_cannot_be_are_named(
    root: Path, notes: dict[str, str], says: str
) -> None:
    for name, text in notes.items():
        (root / name).write_text(text)
    with pytest.raises(DataError, match=says):
        saved_parts(root)


def damaged(content: bytes, generator: random.Random) -> bytes:
    """Cut, or with some bytes changed."""
    if generator.random() < 0.3:
        return content[: generator.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(generator.choice((1, 3, 20))):
        changed[generator.randrange(len(changed))] = generator.randrange(256)
    return bytes(changed)


def _saved(root: Path) -> Path:
    as_datasets("test").save_to_disk(root / "saved")
    return root / "saved" / "data-00000-of-00001.arrow"


def _tar(root: Path) -> Path:
    members: dict[str, bytes] = {}
    for index, (content, label) in enumerate(samples("test")):
        members |= {f"{index}.png": content, f"{index}.cls": str(label).encode()}
    return write_tar(root / "train.tar", members)


def _parquet(root: Path) -> Path:
    as_datasets("test").to_parquet(root / "train.parquet")
    return root / "train.parquet"


MADE: dict[str, tuple[Callable[[Path], Path], Callable[[Path, Path], object]]] = {
    "csv": (
        lambda root: csv_of(root, f"path,label\n{HALF}"),
        lambda root, file: read_manifest(file, config_of(root)),
    ),
    "jsonl": (
        lambda root: csv_of(root, '{"path": "1.png", "label": "a", "split": "train"}\n' * 3, "labels.jsonl"),
        lambda root, file: read_manifest(file, config_of(root)),
    ),
    "tar": (_tar, lambda root, file: read_tars(root, [file])),
    "parquet": (_parquet, lambda root, file: read_tables(root, [file], config_of(root))),
    "arrow": (_saved, lambda root, file: read_tables(root, [file], config_of(root))),
}


@pytest.mark.parametrize("kind", MADE)
def test_a_damaged_file_is_read_or_refused_in_one_line(root: Path, kind: str) -> None:
    make, read = MADE[kind]
    file = make(root)
    content, generator, refused = file.read_bytes(), random.Random(kind), 0
    for _ in range(500):
        file.write_bytes(damaged(content, generator))
        try:
            read(root, file)
        except StillhouseError as error:
            refused += 1
            assert str(error).isprintable()
            assert len(str(error)) < 1000
    assert refused > 10
