"""Downloads through torchvision, from a server on this machine."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, FashionMNIST

from trainables.config.data import DataConfig, DataName
from trainables.data import load_test, load_training
from trainables.errors import DataError

Serve = Callable[[Path], str]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], str]]:
    """Serves a folder over HTTP on this machine and gives its address."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    servers: list[ThreadingHTTPServer] = []

    def start(folder: Path) -> str:
        handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        Thread(target=servers[-1].serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def config_of(name: DataName, root: Path) -> DataConfig:
    return DataConfig(name=name, root=str(root), download=True)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def test_fashion_mnist_is_fetched_into_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Serve
) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    for stem, count in (("train", 30), ("t10k", 6)):
        header = struct.pack(">BBBBIII", 0, 0, 8, 3, count, 28, 28)
        pixels = b"".join(bytes([index]) * 28 * 28 for index in range(count))
        labels = struct.pack(">BBBBI", 0, 0, 8, 1, count) + bytes(index % 10 for index in range(count))
        (mirror / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + pixels))
        (mirror / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    monkeypatch.setattr(FashionMNIST, "mirrors", [f"{serve(mirror)}/"])
    monkeypatch.setattr(
        FashionMNIST, "resources", [(path.name, md5(path)) for path in sorted(mirror.iterdir())]
    )
    config = config_of(DataName.FASHION_MNIST, tmp_path / "new")
    data = load_training(config)
    assert torch.equal(data.train.images[:][:, 0, 0, 0], data.train.ids)
    assert load_test(config).labels.tolist() == [0, 1, 2, 3, 4, 5]


def test_cifar_is_fetched_into_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Serve
) -> None:
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    for name, count in (("data_batch_1", 30), ("test_batch", 6)):
        rows = np.arange(count, dtype=np.uint8)[:, None].repeat(3072, axis=1)
        (folder / name).write_bytes(pickle.dumps({"data": rows, "labels": [i % 10 for i in range(count)]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    with tarfile.open(tmp_path / "archive.tar.gz", "w:gz") as tar:
        tar.add(folder, CIFAR10.base_folder)
    monkeypatch.setattr(CIFAR10, "url", f"{serve(tmp_path)}/archive.tar.gz")
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(tmp_path / "archive.tar.gz"))
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", md5(folder / "data_batch_1")]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5(folder / "test_batch")]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5(folder / "batches.meta")})
    config = config_of(DataName.CIFAR10, tmp_path / "new")
    data = load_training(config)
    assert torch.equal(data.train.images[:][:, 2, 31, 31], data.train.ids)
    assert load_test(config).labels.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_failed_fetch_of_fashion_mnist_says_what_to_do_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Serve
) -> None:
    monkeypatch.setattr(FashionMNIST, "mirrors", [f"{serve(tmp_path)}/nothing/"])
    with pytest.raises(
        DataError, match=r"cannot download into .*new: .*404.*apt-get install dataset-fashion"
    ):
        load_training(config_of(DataName.FASHION_MNIST, tmp_path / "new"))


def test_a_failed_fetch_of_cifar_says_what_to_do_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Serve
) -> None:
    monkeypatch.setattr(CIFAR10, "url", f"{serve(tmp_path)}/nothing.tar.gz")
    with pytest.raises(
        DataError, match=r"cannot download into .*new: .*404.*unpack cifar-10-python\.tar\.gz"
    ):
        load_training(config_of(DataName.CIFAR10, tmp_path / "new"))
