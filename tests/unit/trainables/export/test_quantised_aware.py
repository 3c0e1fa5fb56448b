"""The int8 file of a network that was trained for it answers as that network does."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from tests.unit.trainables.models.residual_network import Residual
from trainables.config import DataConfig
from trainables.data import load_training
from trainables.errors import StillhouseError
from trainables.export import quantised_aware
from trainables.export.onnx_session import onnx_forward
from trainables.export.quantised_aware import fold_batch_norm, write_int8_aware
from trainables.export.stated import STATED
from trainables.export.tracing import quiet_exporter, write_onnx
from trainables.models.fake_quantised.network import fake_quantise, measure_ranges
from trainables.models.fake_quantised.points import find_points
from trainables.views.normalise import normalise

SHAPE = (3, 8, 8)
STEPS = 60


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    """Three classes of real digits, as three equal channels."""
    data = load_training(DataConfig.from_plain({"name": "digits"}))
    rows = data.train.labels < 3
    images = normalise(data.train.images[rows], data.mean, data.std)[:256]
    return images.expand(-1, 3, -1, -1).contiguous(), data.train.labels[rows][:256]


@pytest.fixture(scope="module")
def network(digits: tuple[Tensor, Tensor]) -> nn.Module:
    """Trained as it is, then with fake quantisation."""
    torch.manual_seed(0)
    images, labels = digits
    model = Residual()
    train(model, images, labels)
    model.eval()
    fake_quantise(model, find_points(model, SHAPE))
    measure_ranges(model, [images])
    train(model, images, labels)
    return model.eval()


def train(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(STEPS):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model.train()(images), labels).backward()  # type: ignore[no-untyped-call]
        optimiser.step()


@pytest.fixture(scope="module")
def written(
    network: nn.Module, digits: tuple[Tensor, Tensor], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("aware")
    write_int8_aware(network, float_file(folder), folder / "int8.onnx", digits[0], '{"told": 1}')
    return folder / "int8.onnx"


def float_file(folder: Path) -> Path:
    path = folder / "student.onnx"
    with quiet_exporter():
        write_onnx(Residual().eval(), path, input_shape=SHAPE)
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"stillhouse.classes": "[]"})
    onnx.save(model, path)
    return path


def test_file_and_network_give_the_same_class_and_nearly_the_same_logits(
    network: nn.Module, digits: tuple[Tensor, Tensor], written: Path
) -> None:
    images, labels = digits
    with torch.no_grad():
        expected = network(images)
    found = onnx_forward(written)(images)
    assert float((expected.argmax(dim=1) == labels).double().mean()) > 0.9
    assert float((expected.argmax(dim=1) == found.argmax(dim=1)).double().mean()) >= 0.99
    assert float((expected - found).abs().max()) < 0.03 * float(expected.abs().max())
    assert onnx_forward(written)(images[:1]).shape == (1, 3)


def test_all_layers_are_computed_in_whole_numbers(written: Path, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "as_computed.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(written, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(tmp_path / "as_computed.onnx").graph
    kinds = Counter(node.op_type for node in graph.node)
    assert (kinds["QLinearConv"], kinds["QGemm"]) == (2, 1)
    assert not {"Conv", "Gemm", "BatchNormalization"} & kinds.keys()


def test_weights_have_7_bits_and_a_step_of_each_channel(network: nn.Module, written: Path) -> None:
    model = onnx.load(written)
    numbers = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
    whole = [values for values in numbers.values() if values.dtype == "int8" and values.ndim > 1]
    assert sorted(values.shape for values in whole) == [(3, 4), (4, 3, 3, 3), (4, 4, 3, 3)]
    assert max(abs(int(values.min())) for values in whole) <= 64
    assert max(int(values.max()) for values in whole) <= 64
    of_conv2 = next(values for values in whole if values.shape == (4, 4, 3, 3))
    weight = network.get_parameter("conv2.weight").detach()
    steps_O = weight.flatten(1).abs().amax(dim=1) / 64
    assert (of_conv2 == torch.round(weight / steps_O[:, None, None, None]).numpy()).all()


def test_what_the_float_file_says_of_itself_and_the_document_are_in_the_file(written: Path) -> None:
    told = {entry.key: entry.value for entry in onnx.load(written).metadata_props}
    assert told == {"stillhouse.classes": "[]", STATED: '{"told": 1}'}


def test_a_file_that_answers_otherwise_than_its_network_is_refused(
    network: nn.Module, digits: tuple[Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(path: Path) -> object:
        return lambda images: 2 * onnx_forward(path)(images)

    monkeypatch.setattr(quantised_aware, "onnx_forward", other)
    with pytest.raises(StillhouseError, match="differ from those of the network that was trained for it"):
        write_int8_aware(network, float_file(tmp_path), tmp_path / "int8.onnx", digits[0], "{}")


@pytest.mark.parametrize("has_bias", [True, False])
def test_batch_norm_becomes_a_part_of_the_convolution_that_it_alone_reads(has_bias: bool) -> None:
    """Two of one input with one weight, as in a residual block; a third has another reader too."""
    drawn = np.random.default_rng(0)
    numbers = {"weight": drawn.normal(size=(4, 3, 3, 3)), "conv_bias": drawn.normal(size=4)}
    numbers |= {f"{name}_{n}": drawn.normal(size=4) for name in ("scale", "shift", "mean") for n in range(3)}
    numbers |= {f"variance_{n}": drawn.uniform(0.5, 2, size=4) for n in range(3)}
    given = ["images", "weight", *(["conv_bias"] if has_bias else [])]
    nodes = []
    for n in range(3):
        nodes.append(helper.make_node("Conv", given, [f"conv_{n}"]))
        norm = [f"conv_{n}", *(f"{name}_{n}" for name in ("scale", "shift", "mean", "variance"))]
        nodes.append(helper.make_node("BatchNormalization", norm, [f"norm_{n}"], epsilon=1e-3))
    nodes.append(helper.make_node("Sum", ["norm_0", "norm_1", "norm_2", "conv_2"], ["logits"]))
    made = [numpy_helper.from_array(values.astype(np.float32), name) for name, values in numbers.items()]
    image = helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [2, 3, 8, 8])
    logits = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, None)
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(helper.make_graph(nodes, "g", [image], [logits], made), opset_imports=opset)
    model.ir_version = 10
    pixels = drawn.normal(size=(2, 3, 8, 8)).astype(np.float32)

    def computed() -> np.ndarray:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        found: np.ndarray = session.run(None, {"images": pixels})[0]
        return found

    before = computed()
    fold_batch_norm(model.graph)
    assert [node.op_type for node in model.graph.node].count("BatchNormalization") == 1
    np.testing.assert_allclose(computed(), before, rtol=1e-4, atol=1e-4)
