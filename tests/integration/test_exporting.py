from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from trainables.checkpoint_header import stated_normalisation
from trainables.config import DataConfig, DataName, ModelConfig, ModelName, Normalisation
from trainables.data import load_training
from trainables.errors import ConfigError, StillhouseError
from trainables.export import formats, tracing
from trainables.export.formats import ExportSummary, export_student
from trainables.models import build_model
from trainables.models.weights import load_weights
from trainables.views.normalise import normalise

SHAPE = (1, 8, 8)
CARD: dict[str, Any] = {
    "classes": [str(digit) for digit in range(10)],
    "normalisation": {"mean": [0.3], "std": [0.4]},
    "metrics": {"selection/accuracy": 0.97},
    "lineage": {
        "teacher": "3f2a",
        "cache": None,
        "trial_id": "t1",
        "objective": "kd",
        "hyper_parameters": {"temperature": 4.0},
        "seed": 7,
    },
}


def rebuild() -> nn.Module:
    return build_model(ModelConfig(name=ModelName.RESNET8, width=4), n_classes=10, in_channels=1)


@pytest.fixture(scope="module")
def images() -> Tensor:
    data = load_training(DataConfig(name=DataName.DIGITS))
    return normalise(data.selection.images[:33], data.mean, data.std)


@pytest.fixture(scope="module")
def model(images: Tensor) -> nn.Module:
    """A student with statistics of its own, in the layout and mode in which training leaves it."""
    torch.manual_seed(0)
    network = rebuild().to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    with torch.no_grad():
        network(images)
    return network  # type: ignore[no-any-return]


def export(model: nn.Module, folder: Path, images: Tensor, **changes: Any) -> ExportSummary:
    arguments: dict[str, Any] = {"rebuild": rebuild, "input_shape": SHAPE, "card": CARD} | changes
    return export_student(model, folder=folder, sample_images=images, **arguments)


@pytest.fixture(scope="module")
def exported(model: nn.Module, images: Tensor, tmp_path_factory: pytest.TempPathFactory) -> ExportSummary:
    return export(model, tmp_path_factory.mktemp("exports") / "champion", images)


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(images)
        return logits


def test_every_format_gives_the_students_logits_at_any_batch_size(
    model: nn.Module, images: Tensor, exported: ExportSummary
) -> None:
    fresh = rebuild()
    load_weights(fresh, exported.path("safetensors"))
    session = onnxruntime.InferenceSession(exported.path("onnx"), providers=["CPUExecutionProvider"])
    program = torch.export.load(exported.path("torch_export")).module()
    modes = [module.training for module in model.modules()]
    assert all(modes)  # the export left them
    try:
        model.eval()
        for batch in (images[:1], images[:2], images, images.repeat(3, 1, 1, 1)):
            expected = logits_of(model, batch)
            for found in (
                logits_of(fresh.eval(), batch),
                logits_of(program, batch),
                torch.from_numpy(session.run(None, {"images": batch.numpy()})[0]),
            ):
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    finally:
        model.train()


@pytest.mark.parametrize("resolution", [5, 12])
def test_a_resized_student_is_exported_with_its_resizing(
    images: Tensor, tmp_path: Path, resolution: int
) -> None:
    def build() -> nn.Module:
        config = ModelConfig(name=ModelName.RESNET8, width=4, resolution=resolution)
        return build_model(config, n_classes=10, in_channels=1)

    student = build().train()
    logits_of(student, images)  # gives batch norm statistics of these images
    summary = export(student, tmp_path / "champion", images, rebuild=build)
    session = onnxruntime.InferenceSession(summary.path("onnx"), providers=["CPUExecutionProvider"])
    program = torch.export.load(summary.path("torch_export")).module()
    expected = logits_of(student.eval(), images)
    assert session.get_inputs()[0].shape[1:] == list(SHAPE)
    found = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits_of(program, images), expected, rtol=1e-4, atol=1e-4)


def test_the_card_describes_the_files(exported: ExportSummary) -> None:
    card = json.loads(exported.card.read_text())
    assert sorted(path.name for path in exported.folder.iterdir()) == [
        "model_card.json",
        "student.onnx",
        "student.pt2",
        "student.safetensors",
    ]
    assert card["classes"] == CARD["classes"]
    assert card["normalisation"] == {"mean": [0.3], "std": [0.4], "pixel_range": [0.0, 1.0]}
    stated = stated_normalisation(exported.path("safetensors"))
    assert stated == Normalisation(mean=(0.3,), std=(0.4,))
    assert card["lineage"] == CARD["lineage"]
    assert card["input_shape"] == [1, 8, 8]
    assert card["versions"]["torch"] == torch.__version__.partition("+")[0]
    for entry in card["files"].values():
        assert (exported.folder / entry["file"]).stat().st_size == entry["bytes"]
        assert 0 <= entry["max_abs_difference"] < 1e-4
    assert [p.name for p in exported.folder.parent.iterdir()] == ["champion"]


def test_the_onnx_file_states_its_opset_and_a_free_batch(exported: ExportSummary) -> None:
    document = onnx.load(exported.path("onnx"))
    onnx.checker.check_model(document, full_check=True)
    assert [entry.version for entry in document.opset_import if entry.domain == ""] == [tracing.OPSET]
    (given,) = document.graph.input
    sides = [side.dim_param or side.dim_value for side in given.type.tensor_type.shape.dim]
    assert sides == ["batch", 1, 8, 8]


def test_the_same_export_is_kept_and_a_damaged_or_other_one_made_anew(
    model: nn.Module, images: Tensor, exported: ExportSummary, tmp_path: Path
) -> None:
    folder = tmp_path / "champion"
    first = export(model, folder, images)
    made = first.path("onnx").stat().st_mtime_ns
    assert export(model, folder, images).path("onnx").stat().st_mtime_ns == made
    first.path("onnx").write_bytes(b"cut short")
    assert export(model, folder, images).files["onnx"].sha256 == exported.files["onnx"].sha256
    renamed = {**CARD, "metrics": {"selection/accuracy": 0.5}}
    export(model, folder, images, card=renamed)
    assert json.loads((folder / "model_card.json").read_text())["metrics"] == renamed["metrics"]
    assert [path.name for path in tmp_path.iterdir()] == ["champion"]


def test_the_exporter_is_silent(model: nn.Module, images: Tensor, tmp_path: Path) -> None:
    seen = io.StringIO()
    handler = logging.StreamHandler(seen)
    logging.getLogger().addHandler(handler)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(seen), contextlib.redirect_stderr(seen):
            warnings.simplefilter("error")
            export(model, tmp_path / "champion", images)
    finally:
        logging.getLogger().removeHandler(handler)
    assert seen.getvalue() == ""


def test_no_file_holds_a_place_of_the_machine_or_an_image_of_the_data(
    images: Tensor, exported: ExportSummary, tmp_path: Path
) -> None:
    archive = zipfile.ZipFile(exported.path("torch_export"))
    content = {name: archive.read(name) for name in archive.namelist()}
    content |= {path.name: path.read_bytes() for path in exported.folder.iterdir()}
    places = [Path(torch.__file__).parents[1], Path(formats.__file__).parents[2], Path.cwd(), Path.home()]
    assert [name for name, held in content.items() if any(str(p).encode() in held for p in places)] == []
    assert [name for name, held in content.items() if images[0].numpy().tobytes() in held] == []


def test_an_onnx_file_says_itself_what_the_card_says(
    model: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    network = ModelConfig(name=ModelName.RESNET8, width=4)
    facts = CARD | {
        "architecture": {"network": network.plain(), "n_classes": 10, "in_channels": 1, "parameters": 5142},
        "preparation": {"channels": "grey", "resizing": {"shorter_side": 8, "centre_crop": 8}},
    }
    summary = export(model, tmp_path / "champion", images, card=facts)
    session = onnxruntime.InferenceSession(summary.path("onnx"))
    held = session.get_modelmeta().custom_metadata_map
    card = json.loads(summary.card.read_text())
    for name in ("classes", "normalisation", "architecture", "preparation", "lineage", "metrics"):
        assert json.loads(held[f"stillhouse.{name}"]) == card[name]
    # Nothing but the card is needed to build the network, prepare an image, and get the student's answer.
    built = card["architecture"]
    again = build_model(
        ModelConfig.from_plain(built["network"]),
        n_classes=built["n_classes"],
        in_channels=built["in_channels"],
    )
    load_weights(again, summary.path("safetensors"))
    assert sum(weights.numel() for weights in again.parameters()) == built["parameters"]
    student = copy.deepcopy(model).to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    assert torch.equal(logits_of(again.eval(), images), logits_of(student, images))


def test_weights_too_large_for_one_onnx_file_lie_beside_it(
    model: nn.Module, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "ONNX_LIMIT_BYTES", 0)
    summary = export(model, tmp_path / "champion", images)
    assert summary.path("onnx_data").stat().st_size > 4 * 1000
    session = onnxruntime.InferenceSession(summary.path("onnx"))
    assert np.isfinite(session.run(None, {"images": images.numpy()})[0]).all()


class OtherNetwork(nn.Module):
    """Has the student's weights, and does something else with them."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = rebuild()

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner.load_state_dict(*args, **kwargs)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner.state_dict(*args, **kwargs)

    def forward(self, images: Tensor) -> Tensor:
        return 1.01 * self.inner(images)  # type: ignore[no-any-return]


def test_a_format_that_differs_is_refused_and_what_was_there_stays(
    model: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    folder = tmp_path / "champion"
    folder.mkdir()
    (folder / "mine.txt").write_text("kept")
    with pytest.raises(StillhouseError, match=r"student\.safetensors differs from the PyTorch student by"):
        export(model, folder, images, rebuild=OtherNetwork)
    assert [path.name for path in tmp_path.iterdir()] == ["champion"]
    assert (folder / "mine.txt").read_text() == "kept"


class NotTraceable(nn.Module):
    """Decides in Python by a value, which no exported graph can."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(images.flatten(1))
        return logits if float(logits.sum()) > 0 else -logits


def test_a_network_that_cannot_be_traced_is_told_so(images: Tensor, tmp_path: Path) -> None:
    with pytest.raises(StillhouseError, match=r"must be traceable by torch\.export"):
        export(NotTraceable(), tmp_path / "champion", images, rebuild=NotTraceable)
    assert list(tmp_path.iterdir()) == []


def test_an_incomplete_card_or_a_single_image_is_refused(
    model: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="metrics"):
        export(model, tmp_path / "a", images, card={k: v for k, v in CARD.items() if k != "metrics"})
    with pytest.raises(ConfigError, match=r"shape \(1, 1, 8, 8\).*two or more"):
        export(model, tmp_path / "a", images[:1])
    with pytest.raises(ConfigError, match=r"\(3, 8, 8\)"):
        export(model, tmp_path / "a", images, input_shape=(3, 8, 8))


@pytest.mark.parametrize("name", ["differs", "class"])
def test_a_difference_of_values_or_of_the_top_class_is_an_error(name: str) -> None:
    expected = torch.tensor([[100.0, 99.999, 0.0]])
    # Within 1e-4 of the largest logit in both; the second swaps the first two.
    found = {
        "differs": torch.tensor([[100.0, 99.9, 0.02]]),
        "class": torch.tensor([[99.9985, 99.9995, 0.0]]),
    }[name]
    with pytest.raises(StillhouseError, match=name):
        formats._difference("onnx", expected, found)
    assert formats._difference("onnx", torch.ones(1, 3), torch.ones(1, 3)) == 0.0


def test_a_logit_that_is_not_a_number_is_an_error() -> None:
    with pytest.raises(StillhouseError, match="differs"):
        formats._difference("onnx", torch.zeros(1, 3), torch.tensor([[0.0, float("nan"), 0.0]]))


def test_a_cosine_head_is_exported_in_every_format(images: Tensor, tmp_path: Path) -> None:
    config = ModelConfig(name=ModelName.CONVNET, width=4, cosine_head=12)

    def build() -> nn.Module:
        return build_model(config, n_classes=10, in_channels=1)

    summary = export(build(), tmp_path / "champion", images, rebuild=build)
    assert all(file.max_abs_difference < 1e-4 for file in summary.files.values())
