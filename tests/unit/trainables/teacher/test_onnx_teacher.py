"""A teacher in an ONNX file is loaded, kept, cached, proved and known like any other."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.unit.trainables.models.onnx_files import exported, write
from trainables.cache.format.planning import claim_folder
from trainables.cache.format.storage import open_place
from trainables.checkpoint_header import SUFFIXES, stated_classes, stated_normalisation, why_unreadable
from trainables.config import (
    CacheConfig,
    DataConfig,
    DataName,
    KeptNetwork,
    Normalisation,
    TrainingConfig,
    ViewsConfig,
)
from trainables.data import TrainingData, load_training
from trainables.data.splits import split_facts
from trainables.errors import CacheError, CheckpointError, ConfigError
from trainables.teacher.cache_build import build_cache
from trainables.teacher.cache_request import CacheRequest
from trainables.teacher.live import LiveTeacher
from trainables.teacher.loading import load_teacher
from trainables.teacher.online import OnlineTeacher
from trainables.training.train_teacher import TeacherFacts, TeacherRequest, checkpoint_facts, make_teacher
from trainables.views.normalise import normalise

DATA = DataConfig(name=DataName.DIGITS, train_limit=300)
OWN = Normalisation(mean=(0.7,), std=(0.2,))


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return load_training(DATA)


@pytest.fixture(scope="module")
def network(data: TrainingData) -> nn.Module:
    """Trained on images that are normalised by OWN."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trained = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        optimizer = torch.optim.Adam(trained.parameters(), lr=0.01)
        images = normalise(data.train.images[:], OWN.mean, OWN.std)
        for _ in range(60):
            optimizer.zero_grad()
            F.cross_entropy(trained(images), data.train.labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return trained.eval()


@pytest.fixture
def file(network: nn.Module, tmp_path: Path) -> Path:
    with_softmax = nn.Sequential(*network, nn.Softmax(dim=1))  # type: ignore[misc]
    return exported(with_softmax, tmp_path / "given.onnx", torch.zeros(2, 1, 8, 8))


def request(folder: Path, file: Path, **said: object) -> TeacherRequest:
    return TeacherRequest.from_plain(
        {
            "data": DATA.plain(),
            "model": None,
            "checkpoint": str(file),
            "normalisation": OWN.plain(),
            "training": TrainingConfig().plain(),
            "views": ViewsConfig().plain(),
            "seed": 1,
            "folder": str(folder),
            **said,
        }
    )


def made(folder: Path, file: Path, **said: object) -> tuple[TeacherFacts, KeptNetwork]:
    asked_for = request(folder, file, **said)
    facts = make_teacher(asked_for, lambda *_: None)
    kept = facts.kept(asked_for)
    assert kept is not None
    return facts, kept


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return float((network(images).argmax(dim=1) == labels).double().mean())


def test_it_is_kept_in_the_teachers_folder_and_is_as_good_as_it_was(
    data: TrainingData, network: nn.Module, file: Path, tmp_path: Path
) -> None:
    facts, kept = made(tmp_path / "teacher", file)
    selection = normalise(data.selection.images[:], OWN.mean, OWN.std)
    assert facts.selection_accuracy == pytest.approx(
        accuracy(network, selection, data.selection.labels), abs=1e-6
    )
    assert facts.weights == str(tmp_path / "teacher" / "teacher.onnx")
    assert (facts.params, facts.adapted) == (64 * 32 + 32 + 320 + 10, ("its Softmax is cut off",))
    images = normalise(data.selection.images[:5], data.mean, data.std)
    with torch.no_grad():
        expected = network(normalise(data.selection.images[:5], OWN.mean, OWN.std))
    torch.testing.assert_close(load_teacher(kept, data)(images), expected, rtol=1e-4, atol=1e-4)


def test_its_identity_is_that_of_the_file_and_what_was_said_of_it(
    data: TrainingData, file: Path, tmp_path: Path
) -> None:
    facts, _ = made(tmp_path / "a", file)
    again, _ = made(tmp_path / "a", Path(str(facts.weights)))
    known = checkpoint_facts(request(tmp_path, file), str(file), data)
    assert {facts.fingerprint} == {again.fingerprint, known.fingerprint}
    other, _ = made(tmp_path / "b", file, normalisation="data")
    another, _ = made(tmp_path / "c", write(tmp_path / "other.onnx"))
    assert len({facts.fingerprint, other.fingerprint, another.fingerprint}) == 3


def test_numbers_that_lie_beside_it_are_kept_with_it(file: Path, tmp_path: Path, data: TrainingData) -> None:
    path = tmp_path / "big" / "given.onnx"
    path.parent.mkdir()
    model = onnx.load(file)
    onnx.save(model, path, save_as_external_data=True, location="given.onnx.data", size_threshold=0)
    facts, kept = made(tmp_path / "teacher", path)
    assert sorted(each.name for each in (tmp_path / "teacher").iterdir()) == [
        "given.onnx.data",
        "selection_answers.safetensors",
        "teacher.onnx",
    ]
    path.unlink()
    images = normalise(data.selection.images[:], data.mean, data.std)
    assert accuracy(load_teacher(kept, data), images, data.selection.labels) == pytest.approx(
        facts.selection_accuracy, abs=1e-6
    )


def cache_of(facts: TeacherFacts, kept: KeptNetwork, folder: Path, data: TrainingData) -> CacheRequest:
    return CacheRequest(
        data=DATA,
        facts=split_facts(data),
        teacher=kept,
        teacher_digest=facts.fingerprint,
        views=ViewsConfig(),
        banks=("weak",),
        view_seed=3,
        cache=CacheConfig(),
        folder=str(folder),
    )


def test_online_it_says_what_its_cache_would_say(data: TrainingData, file: Path, tmp_path: Path) -> None:
    _, kept = made(tmp_path / "teacher", file)
    teacher, views, rows = load_teacher(kept, data), ViewsConfig(), torch.arange(6)
    live = LiveTeacher(teacher, data, seed=1, batch_size=4, device=torch.device("cpu"))
    online = OnlineTeacher(live, views)
    assert torch.equal(online.signal("weak", 0, rows).logits_BC, live.logits(views.weak.recipe, 0, rows))


def test_of_more_outputs_the_datas_are_found_by_name_and_unnamed_ones_are_refused(
    data: TrainingData, tmp_path: Path
) -> None:
    path = write(tmp_path / "twelve.onnx", n_outputs=12)
    names = ["a", *data.classes, "b"]
    _, kept = made(tmp_path / "teacher", path, classes=names)
    assert kept.classes is not None
    assert kept.classes.rows == tuple(range(1, 11))
    with pytest.raises(CheckpointError, match=r"12 outputs, and 10 classes are known; name all its outputs"):
        made(tmp_path / "other", path)


def test_what_an_export_of_ours_states_is_understood(tmp_path: Path) -> None:
    def state(model: onnx.ModelProto) -> None:
        stated = {
            "stillhouse.normalisation": {"mean": [0.5], "std": [0.25], "pixel_range": [0, 1]},
            "stillhouse.classes": ["a", "b"],
        }
        onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in stated.items()})

    path = write(tmp_path / "ours.onnx", change=state)
    assert stated_normalisation(path) == Normalisation(mean=(0.5,), std=(0.25,))
    assert stated_classes(path) == ("a", "b")
    assert stated_normalisation(write(tmp_path / "theirs.onnx")) is None


def test_one_that_says_nothing_of_its_images_is_refused_with_the_line_to_write(
    data: TrainingData, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"does not say how images were normalised .*normalisation: data"):
        made(tmp_path / "t", write(tmp_path / "given.onnx"), normalisation=None)


def test_it_has_no_embedding(data: TrainingData, file: Path, tmp_path: Path) -> None:
    facts, kept = made(tmp_path / "teacher", file)
    asked = cache_of(facts, kept, tmp_path, data).with_overrides(cache=CacheConfig(embedding=True))
    place = open_place(asked.uri)
    claim_folder(place, asked.origin)
    with pytest.raises(
        CacheError, match=r"no features that could be kept \(embedding\), since its network is an ONNX file"
    ):
        build_cache(asked, progress=lambda *_: None)


def test_a_header_tells_whether_it_is_one(tmp_path: Path) -> None:
    path = write(tmp_path / "t.onnx")
    allowed = (*SUFFIXES, ".onnx")
    assert why_unreadable(path, suffixes=allowed) is None
    assert "allowed: a file that ends in .safetensors, .pt, .pth" in str(why_unreadable(path))
    path.write_bytes(b"version https://git-lfs")
    assert why_unreadable(path, suffixes=allowed) == "allowed: an intact ONNX file; this one is none"
