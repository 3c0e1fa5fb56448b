"""Every reader of files that others wrote: whatever is in them, it is used, or refused in one line."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn

from tests.unit.spoilt_files import refusals, spoilt
from tests.unit.trainables.cache.tiny_caches import TinyCache
from trainables.cache.format.manifest import MANIFEST, read_manifest
from trainables.cache.format.storage import open_place
from trainables.cache.tools.logit_files import read_logits
from trainables.checkpoint_header import stated_classes, stated_normalisation, why_unreadable
from trainables.data.named.idx import read_idx
from trainables.data.pictures import examine, read_square
from trainables.errors import CacheError, CheckpointError, DataError, StillhouseError
from trainables.foreign_files import Unreadable, foreign_file
from trainables.models.weights import load_weights

IDS = np.arange(12)
LOGITS = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
METADATA = {"normalisation": '{"mean": [0.5], "std": [0.25]}', "classes": '["a", "b"]'}


def network() -> nn.Module:
    return nn.Linear(3, 2)


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, ids=IDS, logits=LOGITS)
    return buffer.getvalue()


def parquet() -> bytes:
    buffer = io.BytesIO()
    columns = {"ids": IDS, **{f"logit_{c}": LOGITS[:, c] for c in range(3)}}
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def parquet_of_lists() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"ids": IDS, "logits": LOGITS.tolist()}), buffer)
    return buffer.getvalue()


def torch_file() -> bytes:
    buffer = io.BytesIO()
    torch.save(network().state_dict(), buffer)
    return buffer.getvalue()


def idx() -> bytes:
    return bytes([0, 0, 8, 3]) + struct.pack(">3I", 4, 5, 6) + bytes(120)


def picture(kind: str) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def look_at_header(path: Path) -> None:
    why_unreadable(path)
    stated_normalisation(path)
    stated_classes(path)


def look_at_picture(path: Path) -> None:
    if not examine(path, decode=True).fault:
        with foreign_file(Unreadable):
            read_square(path, 8)


def weights_into_network(path: Path) -> None:
    load_weights(network(), path)


SAFETENSORS = safetensors.torch.save(network().state_dict(), METADATA)
FILES: dict[str, tuple[str, bytes, Callable[[Path], object]]] = {
    "npz": ("a.npz", npz(), read_logits),
    "parquet of columns": ("a.parquet", parquet(), read_logits),
    "parquet of lists": ("a.parquet", parquet_of_lists(), read_logits),
    "safetensors": ("a.safetensors", SAFETENSORS, weights_into_network),
    "header": ("a.safetensors", SAFETENSORS, look_at_header),
    "torch": ("a.pt", torch_file(), weights_into_network),
    "idx": ("a", idx(), partial(read_idx, dimensions=3)),
    "gzipped idx": ("a.gz", gzip.compress(idx(), mtime=0), partial(read_idx, dimensions=3)),
    **{
        kind: (f"a.{kind}", picture(kind), look_at_picture) for kind in ("png", "jpeg", "tiff", "webp", "gif")
    },
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    name, good, read = FILES[kind]
    path = tmp_path / name
    path.write_bytes(good)
    read(path)
    refused = refusals(path, spoilt(good), read)
    assert refused > 20 or read in (look_at_header, look_at_picture)


def test_a_damaged_manifest_is_refused_in_one_line(tiny: TinyCache) -> None:
    tiny.build()
    place, path = open_place(tiny.uri), Path(tiny.uri) / MANIFEST
    assert refusals(path, spoilt(path.read_bytes(), 200), lambda _: read_manifest(place)) > 50


def refused(path: Path, error: type[StillhouseError], read: Callable[[Path], object] = read_logits) -> str:
    with pytest.raises(error) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(path), "FILE")


def test_one_array_by_the_name_of_an_archive_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with path.open("wb") as file:
        np.save(file, LOGITS)
    assert refused(path, DataError).startswith("FILE is one array, .npy, by another name")


def test_a_column_that_stands_twice_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table([IDS, IDS, LOGITS.tolist()], names=["ids", "ids", "logits"]), path)
    assert refused(path, DataError) == "FILE: column ids stands in it more than once; leave one"


def test_an_archive_that_claims_more_than_any_memory_holds_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    header = io.BytesIO()
    described = {"descr": "<f4", "fortran_order": False, "shape": (1_400_000_000_000, 3)}
    np.lib.format.write_array_header_1_0(header, described)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ids.npy", header.getvalue())
        archive.writestr("logits.npy", header.getvalue())
    assert refused(path, DataError).startswith("FILE cannot be read: ")


@pytest.mark.parametrize(
    ("ids", "logits"),
    [
        (IDS.astype(str), LOGITS),
        (IDS, LOGITS.astype(str)),
        (IDS.astype(bool), LOGITS),
        (IDS, LOGITS.astype(complex)),
        (IDS, LOGITS.astype("datetime64[s]")),
        (IDS, LOGITS.astype(np.int64)),
        (IDS[:, None], LOGITS),
        (IDS[:3], LOGITS),
        (np.array(3), np.array(4.0)),
        (IDS[:0], LOGITS[:0]),
    ],
)
def test_arrays_of_wrong_types_and_shapes_are_told(ids: Any, logits: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, ids=ids, logits=logits)
    if logits.size:
        assert "allowed: " in refused(path, DataError)
    else:
        read_logits(path)


@pytest.mark.parametrize(
    "header",
    [
        200_000 * b"[",
        b'{"a": {"data_offsets": [0, Infinity]}}',
        b'{"a": {"data_offsets": [0, "x"]}}',
        b'{"a": 1}',
        b'{"__metadata__": {"normalisation": {}}}',
        json.dumps({"__metadata__": {"normalisation": 50_000 * "[", "classes": 50_000 * "["}}).encode(),
        b"\xff\xfe",
    ],
)
def test_a_broken_header_is_told(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    look_at_header(path)
    assert stated_normalisation(path) is None
    refused(path, CheckpointError, weights_into_network)


@pytest.mark.parametrize(
    "content",
    [
        {"weight": 1, "bias": "x"},
        {1: torch.zeros(2)},
        [torch.zeros(2)],
        {"state_dict": {"state_dict": {}}},
        {"weight": torch.zeros(2, 3, dtype=torch.complex64), "bias": torch.zeros(2)},
        {"weight": torch.zeros(2, 3).to_sparse(), "bias": torch.zeros(2)},
        {"weight": torch.zeros(2, 3, device="meta"), "bias": torch.zeros(2)},
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_of_wrong_types_is_told(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(content, path)
    refused(path, CheckpointError, weights_into_network)


def test_a_manifest_of_a_wrong_type_is_told(tmp_path: Path) -> None:
    place = open_place(str(tmp_path))
    path = tmp_path / "manifest.json"
    for content in (200_000 * b"[", b"[]", b"null", b'{"identity": 1}', b"\xff"):
        path.write_bytes(content)
        refused(path, CacheError, lambda _: read_manifest(place))
