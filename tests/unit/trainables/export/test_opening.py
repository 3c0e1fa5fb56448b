"""Exported files are enough: each says how images are prepared for it, and answers as the student does."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn

from tests.unit.trainables.export.exported_students import (
    CLASSES,
    NETWORK,
    SIDE,
    card,
    export_tiny,
    photograph,
    pixels,
    trained_network,
    weights_alone,
)
from trainables.config import ModelConfig, ModelName
from trainables.data.pictures import read_square
from trainables.errors import CheckpointError
from trainables.evaluation.metrics import finite_logits
from trainables.export.formats import ExportSummary
from trainables.export.model_card import ModelCard, read_intact_card
from trainables.export.opening import exported_file, open_student
from trainables.export.picture_reading import picture_reader
from trainables.export.stated import STATED, StudentDocument, document_of
from trainables.local_files import file_sha256
from trainables.models.weights import save_weights

FORMATS = ("safetensors", "onnx", "torch_export")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return trained_network()


@pytest.fixture(scope="module")
def exported(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> ExportSummary:
    return export_tiny(tmp_path_factory.mktemp("exports") / "champion", model)


def expected(model: nn.Module, images: Tensor) -> Tensor:
    """As the evaluation of a run computes logits."""
    document = StudentDocument.from_plain({**card(), "input_shape": [3, SIDE, SIDE]})
    own = document.normalisation
    with torch.no_grad():
        return finite_logits(model, images, own.mean, own.std)


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_alone_is_opened_and_answers_as_the_student(
    model: nn.Module, exported: ExportSummary, tmp_path: Path, name: str
) -> None:
    alone = tmp_path / exported.path(name).name
    alone.write_bytes(exported.path(name).read_bytes())
    student = open_student(alone)
    images = pixels(7, seed=3)
    assert student.classes == CLASSES
    torch.testing.assert_close(student.logits(images), expected(model, images), rtol=1e-4, atol=1e-5)
    if name == "safetensors":
        assert torch.equal(student.logits(images), expected(model, images))


@pytest.mark.parametrize("name", FORMATS)
def test_each_file_holds_the_same_document_under_its_documented_name(
    exported: ExportSummary, name: str
) -> None:
    path = exported.path(name)
    if name == "safetensors":
        with safe_open(path, "pt") as file:
            text = file.metadata()[STATED]
    elif name == "onnx":
        text = {entry.key: entry.value for entry in onnx.load(path).metadata_props}[STATED]
    else:
        extra = {STATED: ""}
        torch.export.load(path, extra_files=extra)
        text = extra[STATED]
    document = StudentDocument.from_plain(json.loads(text))
    assert document == document_of(path)
    assert document.classes == CLASSES
    assert document.input_shape == (3, SIDE, SIDE)
    assert document.preparation is not None
    assert document.preparation.resizing is not None
    assert document.preparation.resizing.shorter_side == 14


def test_the_card_says_how_files_compare_on_how_many_images(exported: ExportSummary) -> None:
    read = read_intact_card(exported.folder)
    assert read is not None
    for file in read.files.values():
        assert file.images == 40
        assert file.agreement == 1.0
        assert file.max_abs_difference < 1e-4


def test_an_image_file_becomes_the_pixels_that_training_saw(exported: ExportSummary, tmp_path: Path) -> None:
    path = tmp_path / "owl.png"
    Image.fromarray(photograph(33, 57)).save(path)
    read, was_scaled = picture_reader(document_of(exported.path("onnx"))).prepared(path)
    assert np.array_equal(read, read_square(path, SIDE, resize=14))
    assert not was_scaled


def test_images_of_another_size_than_the_data_sets_are_scaled_and_told(tmp_path: Path) -> None:
    document = StudentDocument.from_plain(
        {**card(preparation={"channels": "grey", "resizing": None}), "input_shape": [1, 8, 8]}
    )
    reader = picture_reader(document)
    exact, other = tmp_path / "exact.png", tmp_path / "other.png"
    Image.fromarray(photograph(8, 8)).save(exact)
    Image.fromarray(photograph(20, 30)).save(other)
    grey, was_scaled = reader.prepared(exact)
    assert np.array_equal(grey, np.asarray(Image.open(exact).convert("L"))[None])
    assert not was_scaled
    scaled, was_scaled = reader.prepared(other)
    assert scaled.shape == (1, 8, 8)
    assert was_scaled


def test_channels_that_image_files_do_not_have_are_refused() -> None:
    document = StudentDocument.from_plain({**card(), "input_shape": [4, 8, 8]})
    with pytest.raises(CheckpointError, match="images of 4 channels, which image files do not have"):
        picture_reader(document)


def test_a_file_of_an_earlier_version_is_described_by_the_card_beside_it(
    model: nn.Module, exported: ExportSummary, tmp_path: Path
) -> None:
    path = tmp_path / "student.safetensors"
    save_weights(model, path, {})
    with pytest.raises(CheckpointError, match=r"no model_card\.json beside it lists it"):
        document_of(path)
    now = json.loads(exported.card.read_text())
    entry = now["files"]["safetensors"] | {"sha256": file_sha256(path)}
    (tmp_path / "model_card.json").write_text(json.dumps(now | {"files": {"safetensors": entry}}))
    assert document_of(path).classes == CLASSES
    path.write_bytes(exported.path("safetensors").read_bytes()[:-4])  # not what the card lists
    with pytest.raises(CheckpointError):
        open_student(path)


def built_by(network: ModelConfig) -> dict[str, Any]:
    """The architecture of a card whose network somebody else builds."""
    return {"network": network.plain(), "n_classes": 3, "in_channels": 3, "parameters": 1}


def test_a_champions_folder_is_asked_by_weights_that_can_be_built_again_else_by_onnx(
    model: nn.Module, exported: ExportSummary, tmp_path: Path
) -> None:
    assert exported_file(exported.folder) == exported.path("safetensors")
    theirs = built_by(ModelConfig(factory="module_of_nobody:network"))
    weights = weights_alone(tmp_path / "student.safetensors", model, architecture=theirs)
    with pytest.raises(CheckpointError, match=r"can be built again and no student\.onnx"):
        exported_file(tmp_path)
    graph = tmp_path / "student.onnx"
    graph.write_bytes(exported.path("onnx").read_bytes())
    assert exported_file(tmp_path) == graph
    with pytest.raises(CheckpointError, match=r"code of yours.*--allow-factory"):
        open_student(weights)


def test_weights_of_transformers_are_not_built_from_a_file(model: nn.Module, tmp_path: Path) -> None:
    theirs = built_by(ModelConfig(name=ModelName.TRANSFORMERS, variant="microsoft/resnet-18"))
    weights = weights_alone(tmp_path / "student.safetensors", model, architecture=theirs)
    with pytest.raises(CheckpointError, match=r"not built from a file; use the \.onnx or \.pt2"):
        open_student(weights, allow_factory=True)


def test_a_users_function_builds_the_network_where_the_user_says_so(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_own_network.py").write_text(
        "from trainables.config import ModelConfig\nfrom trainables.models import build_model\n"
        f"def network(n_classes):\n"
        f"    config = ModelConfig.from_plain({NETWORK.plain()!r})\n"
        "    return build_model(config, n_classes=n_classes, in_channels=3)\n"
    )
    monkeypatch.chdir(tmp_path)
    theirs = built_by(ModelConfig(factory="my_own_network:network"))
    weights = weights_alone(tmp_path / "student.safetensors", model, architecture=theirs)
    images = pixels(4)
    assert torch.equal(open_student(weights, allow_factory=True).logits(images), expected(model, images))


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx", ".pt2"])
def test_a_file_that_is_none_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"student{suffix}"
    with pytest.raises(CheckpointError, match=f"no file .*student{suffix}"):
        open_student(path)
    path.write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match=f"student{suffix}"):
        open_student(path)


def test_a_document_of_a_later_version_is_told_as_such(exported: ExportSummary, tmp_path: Path) -> None:
    path = tmp_path / "student.onnx"
    proto = onnx.load(exported.path("onnx"))
    entry = next(each for each in proto.metadata_props if each.key == STATED)
    entry.value = json.dumps(json.loads(entry.value) | {"of_the_future": 1})
    onnx.save(proto, path)
    with pytest.raises(CheckpointError, match=r"of_the_future.*may be of a later version"):
        document_of(path)


def changed_archive(source: Path, target: Path, changes: dict[str, bytes]) -> Path:
    """A copy of an archive in which entries, by the end of their names, have other contents, or are added."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        names = old.namelist()
        for name in names:
            found = [content for end, content in changes.items() if name.endswith(end)]
            new.writestr(name, found[0] if found else old.read(name))
        root = names[0].partition("/")[0]
        for end, content in changes.items():
            if not any(name.endswith(end) for name in names):
                new.writestr(f"{root}/{end}", content)
    return target


def in_model(program: str) -> dict[str, bytes]:
    """Another program in the place of an archive's own."""
    return {"models/model.json": program.encode()}


class Harmful:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, (f"open({str(self.path)!r}, 'w').close()",)


def test_an_archive_that_would_run_a_program_is_refused_before_it_does(
    exported: ExportSummary, tmp_path: Path
) -> None:
    source, made = exported.path("torch_export"), tmp_path / "made"
    pickled = tmp_path / "pickled.pt"
    torch.save(Harmful(made), pickled)
    with zipfile.ZipFile(source) as archive:
        name = next(each for each in archive.namelist() if "/models/" in each)
        program = archive.read(name).decode()
    code = f"open({str(made)!r}, 'w').close()"
    spoilt = {
        "objects in": {"data/sample_inputs/model.pt": pickled.read_bytes()},
        "the expression": in_model(program.replace("Symbol('s", f"{code} or Symbol('s")),
        "a call of": in_model(program.replace("torch.ops.aten.relu.default", "torch.os.system")),
        "the name": in_model(program.replace('"name": "input"', '"name": "input=exec(1)"')),
        "the condition": in_model(program.replace('"guards_code": []', f'"guards_code": ["{code}"]')),
        "the part": {"data/aotinductor/model/code.so": b"ELF"},
    }
    for number, (why, changes) in enumerate(spoilt.items()):
        assert program.encode() not in changes.values(), why
        path = changed_archive(source, tmp_path / f"{number}.pt2", changes)
        with pytest.raises(CheckpointError, match=f"has {why}.* which no exported student needs"):
            open_student(path)
        assert not made.exists()


def test_a_card_of_this_version_is_read_back(exported: ExportSummary) -> None:
    read = ModelCard.from_plain(json.loads(exported.card.read_text()))
    assert read.card_version == 3
