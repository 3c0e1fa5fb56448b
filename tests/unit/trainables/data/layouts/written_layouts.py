"""The same small pictures in each layout that people keep theirs in."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import datasets
import pyarrow.parquet as pq
import webdataset
from PIL import Image

from tests.unit.trainables.data.image_folders import picture

CLASSES: Final = ("cat", "dog", "owl")
PER_CLASS: Final = {"train": 8, "test": 3}

Sample = tuple[bytes, int]


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    image.save(buffer := io.BytesIO(), kind)
    return buffer.getvalue()


def samples(part: str) -> list[Sample]:
    """PNGs of several sizes, no two alike, and their labels; classes take turns."""
    first = {"train": 0, "test": 500}[part]
    return [
        (encoded(picture(first + 100 * label + index, 12 + index, 10 + label)), label)
        for index in range(PER_CLASS[part])
        for label in range(len(CLASSES))
    ]


def write_parts(root: Path, test: str = "test") -> None:
    for part, folder in (("train", "train"), ("test", test)):
        for index, (content, label) in enumerate(samples(part)):
            (path := root / folder / CLASSES[label] / f"{index:03d}.png").parent.mkdir(
                parents=True, exist_ok=True
            )
            path.write_bytes(content)


def write_parts_with_val(root: Path) -> None:
    write_parts(root, "val")


def manifest_lines(root: Path) -> list[dict[str, str]]:
    lines = []
    for part in ("train", "test"):
        for index, (content, label) in enumerate(samples(part)):
            path = root / "files" / f"{part}{index:03d}.bin"  # a manifest says what is an image
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            lines.append({"path": f"files/{path.name}", "label": CLASSES[label], "split": part})
    return lines


def write_csv(root: Path) -> None:
    lines = manifest_lines(root)
    with (root / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "label", "split"])
        writer.writeheader()
        writer.writerows(lines)


def write_json_lines(root: Path) -> None:
    lines = manifest_lines(root)
    (root / "labels.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def as_datasets(part: str) -> datasets.Dataset:
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))}
    )
    own = samples(part)
    cells = [{"bytes": content, "path": None} for content, _ in own]
    return datasets.Dataset.from_dict(
        {"image": cells, "label": [label for _, label in own]}, features=features
    )


def write_parquet(root: Path) -> None:
    (root / "data").mkdir(parents=True)
    for part in ("train", "test"):
        as_datasets(part).to_parquet(root / "data" / f"{part}-00000-of-00001.parquet", batch_size=7)
    schema = pq.read_schema(root / "data" / "train-00000-of-00001.parquet")
    if b"huggingface" not in (schema.metadata or {}):
        raise AssertionError("datasets notes its features no longer in the schema")


def write_saved(root: Path) -> None:
    parts = {part: as_datasets(part) for part in ("train", "test")}
    datasets.DatasetDict(parts).save_to_disk(root, num_shards={"train": 2, "test": 1})


def write_tars(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for part in ("train", "test"):
        own = samples(part)
        for shard, first in enumerate(range(0, len(own), 10)):
            with webdataset.TarWriter(str(root / f"{part}-{shard:06d}.tar")) as sink:
                for index, (content, label) in enumerate(own[first : first + 10], start=first):
                    sink.write(
                        {
                            "__key__": f"{part}/{index:05d}",
                            "png": content,
                            "cls": label,
                            "json": {"id": index},
                        }
                    )


LAYOUTS: Final[dict[str, Callable[[Path], None]]] = {
    "parts": write_parts,
    "parts, val": write_parts_with_val,
    "manifest, csv": write_csv,
    "manifest, jsonl": write_json_lines,
    "parquet": write_parquet,
    "tars": write_tars,
    "datasets": write_saved,
}


def write_tar(file: Path, members: dict[str, bytes], *, mode: str = "w") -> Path:
    """A tar written by hand."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file
