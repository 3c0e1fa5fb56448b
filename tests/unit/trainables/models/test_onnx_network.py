"""A network in an ONNX file: images in, logits out, and one line for what is no such network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper
from torch import Tensor, nn

from tests.unit.trainables.models.onnx_files import exported, images, network, write
from trainables.errors import CheckpointError
from trainables.models.foreign.onnx_graph import onnx_files, read_onnx
from trainables.models.foreign.onnx_network import OnnxNetwork, adapted_by
from trainables.models.weights import count_parameters

GREY = (1, 8, 8)


def loaded(path: Path, shape: tuple[int, int, int] = GREY, output: str | None = None) -> OnnxNetwork:
    return OnnxNetwork(read_onnx(path, output), shape)


def answers(path: Path, count: int = 5) -> Tensor:
    logits: Tensor = loaded(path)(images(count))
    return logits


def right(count: int = 5) -> Tensor:
    with torch.no_grad():
        logits: Tensor = network()(images(count))
    return logits


def test_it_gives_the_logits_of_the_network_that_was_exported(tmp_path: Path) -> None:
    torch.testing.assert_close(answers(write(tmp_path / "t.onnx")), right())
    teacher = loaded(tmp_path / "t.onnx")
    assert (teacher.n_outputs, count_parameters(teacher), adapted_by(teacher)) == (10, 650, ())


@pytest.mark.parametrize(("last", "axis"), [("Softmax", 1), ("Softmax", -1), ("LogSoftmax", 1)])
def test_a_softmax_at_the_end_is_cut_off(tmp_path: Path, last: str, axis: int) -> None:
    path = write(tmp_path / "t.onnx", last=last, axis=axis)
    torch.testing.assert_close(answers(path), right())
    assert adapted_by(loaded(path)) == (f"its {last} is cut off",)


def test_a_softmax_before_a_cast_is_cut_off_too(tmp_path: Path) -> None:
    def cast(model: Any) -> None:
        model.graph.node[-1].output[0] = "given"
        model.graph.node.append(helper.make_node("Cast", ["given"], ["answers"], to=TensorProto.FLOAT))

    path = write(tmp_path / "t.onnx", last="Softmax", axis=1, change=cast)
    torch.testing.assert_close(answers(path), right())


class Probabilities(nn.Module):
    """A softmax that a graph does not call so."""

    def forward(self, logits: Tensor) -> Tensor:
        powers = (logits - logits.amax(dim=1, keepdim=True)).exp()
        return powers / powers.sum(dim=1, keepdim=True)


def test_of_probabilities_without_a_softmax_the_logarithm_is_taken(tmp_path: Path) -> None:
    path = exported(nn.Sequential(network(), Probabilities()), tmp_path / "t.onnx", images())
    found = answers(path)
    torch.testing.assert_close(found.softmax(dim=1), right().softmax(dim=1))
    torch.testing.assert_close(found, F.log_softmax(right(), dim=1))
    assert adapted_by(loaded(path)) == ("it gives probabilities: their logarithm is taken",)


class Sure(nn.Module):
    """Probabilities of which most are nothing in float32."""

    def forward(self, images: Tensor) -> Tensor:
        sure: Tensor = Probabilities()(images.flatten(1)[:, :3] * 1e4)
        return sure


def test_a_probability_of_nothing_is_a_finite_logit(tmp_path: Path) -> None:
    found = answers(exported(Sure(), tmp_path / "t.onnx", images()))
    assert torch.isfinite(found).all()
    assert float(found.min()) < -80


@pytest.mark.parametrize("count", [1, 4, 6])
def test_a_batch_of_a_fixed_size_is_filled_up(tmp_path: Path, count: int) -> None:
    path = write(tmp_path / "t.onnx", shape=(4, 1, 8, 8))
    torch.testing.assert_close(answers(path, count), right(count))


def test_half_precision_and_double_are_served(tmp_path: Path) -> None:
    half, double = (
        write(tmp_path / f"{kind}.onnx", kind=kind) for kind in (TensorProto.FLOAT16, TensorProto.DOUBLE)
    )
    torch.testing.assert_close(answers(half), right(), atol=0.01, rtol=0.01)
    torch.testing.assert_close(answers(double), right())
    assert loaded(half).is_half
    assert not loaded(double).is_half


class ChannelsLast(nn.Module):
    """As TensorFlow's networks take images."""

    def forward(self, images_BHWC: Tensor) -> Tensor:
        return images_BHWC.mean(dim=(1, 2))


def test_channels_may_come_last(tmp_path: Path) -> None:
    path = exported(ChannelsLast(), tmp_path / "t.onnx", torch.zeros(2, 8, 6, 3))
    shown = torch.randn(4, 3, 8, 6)
    torch.testing.assert_close(loaded(path, (3, 8, 6))(shown), shown.mean(dim=(2, 3)))


def test_images_of_another_size_are_resized_as_the_graph_wants_them(tmp_path: Path) -> None:
    teacher, shown = loaded(write(tmp_path / "t.onnx"), (1, 16, 16)), images(side=16)
    small = F.interpolate(shown, size=(8, 8), mode="bilinear", align_corners=False, antialias=True)
    with torch.no_grad():
        torch.testing.assert_close(teacher(shown), network()(small))
    assert adapted_by(teacher) == ("images are resized to 8x8 for it",)


@pytest.mark.parametrize("last", [None, "Softmax"])
def test_numbers_may_lie_in_a_file_beside_it_which_counts_in_the_identity(
    tmp_path: Path, last: str | None
) -> None:
    path = write(tmp_path / "t.onnx", last=last)
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="numbers.bin", size_threshold=0)
    beside = tmp_path / "numbers.bin"
    torch.testing.assert_close(answers(path), right())
    assert onnx_files(path) == read_onnx(path).files == (path, beside)
    before = read_onnx(path).digest
    content = bytearray(beside.read_bytes())
    content[3] ^= 1
    beside.write_bytes(bytes(content))
    assert read_onnx(path).digest != before
    beside.unlink()
    with pytest.raises(CheckpointError, match=r"has its numbers in 'numbers.bin', which is not beside it"):
        read_onnx(path)


def test_numbers_outside_of_its_folder_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(4096))

    def elsewhere(model: Any) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../secret")

    path = write(tmp_path / "inner" / "t.onnx", change=elsewhere)
    with pytest.raises(CheckpointError, match=r"numbers are in '../secret', outside of its folder"):
        read_onnx(path)


def test_one_of_several_outputs_is_named(tmp_path: Path) -> None:
    def two(model: Any) -> None:
        model.graph.output.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["b", 64]))

    path = write(tmp_path / "t.onnx", change=two)
    with pytest.raises(CheckpointError, match=r"2 outputs \(scores, flat\); .*`output: NAME`"):
        read_onnx(path)
    with pytest.raises(CheckpointError, match=r"no output 'logits'; `output` may be scores, flat"):
        read_onnx(path, "logits")
    torch.testing.assert_close(loaded(path, output="scores")(images()), right())
    assert loaded(path, output="flat").n_outputs == 64
    assert read_onnx(path, "flat").digest != read_onnx(path, "scores").digest


def test_copies_work_as_it_does(tmp_path: Path) -> None:
    teacher = loaded(write(tmp_path / "t.onnx"))
    torch.testing.assert_close(copy.deepcopy(teacher)(images()), right())


def second_input(model: Any) -> None:
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["b", 1]))


def chooses(model: Any) -> None:
    model.graph.node.append(helper.make_node("ArgMax", ["scores"], ["class"], axis=1))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("class", TensorProto.INT64, ["b", 1]))


def of_bytes(model: Any) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8


def custom(model: Any) -> None:
    model.graph.node[0].domain = "mine"
    model.opset_import.append(helper.make_opsetid("mine", 1))


def of_the_future(model: Any) -> None:
    model.opset_import[0].version = 99


def quantised(model: Any) -> None:
    model.graph.node.append(helper.make_node("DynamicQuantizeLinear", ["flat"], ["q", "s", "z"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (second_input, r"has 2 inputs \(images, mask\); a teacher has one, the images"),
        (chooses, r"output 'class' of .* is int64; logits are a tensor of floating point"),
        (of_bytes, r"takes uint8 in 'images'; a teacher takes normalised images of floating point"),
        (custom, r"ONNX Runtime cannot load .*mine.*libraries of custom operators are never loaded"),
        (of_the_future, r"ONNX Runtime cannot load .*: ONNX Runtime only .*Opset 99"),
        (quantised, r"quantised while it runs \(DynamicQuantizeLinear\), by the largest number of a batch"),
    ],
)
def test_what_is_no_such_network_gets_one_line(
    tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        loaded(write(tmp_path / "t.onnx", change=change))
    assert "\n" not in str(caught.value)
    assert "onnxruntime_src" not in str(caught.value)


def test_a_sigmoid_at_the_end_and_a_softmax_over_the_batch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="ends in a Sigmoid: its numbers are of classes one by one"):
        loaded(write(tmp_path / "s.onnx", last="Sigmoid"))
    with pytest.raises(
        CheckpointError, match="ends in a Softmax over axis 0, which is not that of the classes"
    ):
        loaded(write(tmp_path / "b.onnx", last="Softmax", axis=0))


def test_images_of_other_channels_and_dimensions_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t.onnx")
    with pytest.raises(CheckpointError, match=r"takes images of shape \?x1x8x8; the data's have 3 channels"):
        loaded(path, (3, 8, 8))
    flat = write(tmp_path / "f.onnx", shape=("b", 64))
    with pytest.raises(CheckpointError, match="takes an input of 2 dimensions"):
        loaded(flat)


@pytest.mark.parametrize("content", [b"", b"\x08\x09", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.onnx"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"t\.onnx"):
        loaded(path)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        read_onnx(tmp_path / "none.onnx")
