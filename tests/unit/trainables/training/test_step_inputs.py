"""What objectives ask for beside logits and labels: dense logits, unshifted logits, rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from tests.unit.trainables.cache.tiny_caches import TinyCache
from tests.unit.trainables.training.small_courses import (
    CPU,
    VIEWS,
    separable_data,
    small_student,
    small_workbench,
)
from trainables.config import ModelConfig, Need, ObjectiveBase, Precision, TrainingPrecision
from trainables.data.splits import split_facts
from trainables.errors import TrialFailed
from trainables.models import build_model
from trainables.models.features.feature_map_logits import DenseLogits
from trainables.models.modes import evaluating
from trainables.signals import Signals
from trainables.training.ranks import SOLO, Share, Solo
from trainables.training.step_inputs import StepInputs
from trainables.training.workbench import Workbench

# B = samples in the batch, C = classes, H, W = height and width


class PlainConfig(ObjectiveBase):
    """Asks for logits alone."""

    banks: ClassVar[tuple[str, ...]] = ("weak", "strong")
    teacher_banks: ClassVar[tuple[str, ...]] = ("strong",)
    paper: ClassVar[str] = "none"


class UnshiftedConfig(PlainConfig):
    """Asks for the teacher's own logits."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.UNSHIFTED})


class DenseConfig(PlainConfig):
    """Asks for what the student says at each position."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.DENSE_LOGITS})


class RowsConfig(PlainConfig):
    """Asks for rows."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.ROWS})


def network(**fields: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_model(ModelConfig.from_plain(fields), n_classes=3, in_channels=1)


def served(config: ObjectiveBase, workbench: Workbench, model: nn.Module) -> Signals:
    inputs = StepInputs(config, workbench, model, SOLO)
    rows_B = torch.tensor([5, 0, 17, 40])
    return inputs.signals(
        model, 2, Share(rows_B, 1.0), precision=TrainingPrecision.FP32, layout=torch.contiguous_format
    )


CONVOLUTIONAL: dict[str, dict[str, Any]] = {
    "convnet": {"name": "convnet", "width": 4},
    "resnet8": {"name": "resnet8", "width": 4},
    "wrn_16_1": {"name": "wrn_16_1"},
    "vgg8": {"name": "vgg8", "width": 4},
    "resized": {"name": "resnet8", "width": 4, "resolution": 16},
    "torchvision": {"name": "torchvision", "variant": "resnet18"},
    "functional average": {"name": "torchvision", "variant": "mobilenet_v2"},
}


@pytest.mark.parametrize("fields", CONVOLUTIONAL.values(), ids=CONVOLUTIONAL)
def test_dense_logits_average_to_the_networks_own(fields: dict[str, Any]) -> None:
    model = network(**fields)
    side = 64 if fields["name"] == "torchvision" else 16
    dense = DenseLogits(model, input_shape=(1, side, side), device=CPU)
    images = torch.rand(2, 1, side, side)
    with evaluating(model):
        logits_BC, dense_BCHW = dense.during(lambda: model(images))
    assert dense_BCHW.shape[:2] == logits_BC.shape
    assert dense_BCHW.shape[2:].numel() > 1
    assert not dense_BCHW.requires_grad
    torch.testing.assert_close(dense_BCHW.mean(dim=(2, 3)), logits_BC.detach(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("model", [network(name="mlp"), small_student(), nn.Conv2d(1, 3, 8)])
def test_a_network_without_an_averaged_map_is_refused(model: nn.Module) -> None:
    with pytest.raises(TrialFailed, match=r"averages its last feature map .* choose a convolutional one"):
        DenseLogits(model, input_shape=(1, 8, 8), device=CPU)


def test_listening_leaves_no_hook_and_no_statistics_behind() -> None:
    model = network(name="convnet", width=4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    dense = DenseLogits(model, input_shape=(1, 8, 8), device=CPU)
    with evaluating(model):
        dense.during(lambda: model(torch.rand(2, 1, 8, 8)))
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training


def test_each_bank_has_dense_logits_of_its_own(tmp_path: Path) -> None:
    workbench = small_workbench(
        kitchen(tmp_path, Precision.FP32).data, cache=kitchen(tmp_path, Precision.FP32).open()
    )
    signals = served(DenseConfig(), workbench, network(name="convnet", width=4))
    assert set(signals.dense) == {"weak", "strong"}
    assert not torch.equal(signals.dense["weak"], signals.dense["strong"])
    assert not served(PlainConfig(), workbench, small_student()).dense


def kitchen(folder: Path, precision: Precision) -> TinyCache:
    data = separable_data()
    tiny = TinyCache(folder, data, small_student(seed=9), split_facts(data), views=VIEWS, precision=precision)
    tiny.build()
    return tiny


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.FP32])
def test_unshifted_logits_are_the_teachers_own(tmp_path: Path, precision: Precision) -> None:
    tiny = kitchen(tmp_path, precision)
    workbench = small_workbench(tiny.data, cache=tiny.open())
    own_BC = served(UnshiftedConfig(), workbench, small_student()).teacher["strong"].logits_BC
    images = workbench.images("strong", 2, torch.tensor([5, 0, 17, 40]))
    with evaluating(tiny.teacher), torch.no_grad():
        live_BC: Tensor = tiny.teacher(images)
    torch.testing.assert_close(own_BC, live_BC, rtol=1e-3, atol=2e-3)
    kept_BC = served(PlainConfig(), workbench, small_student()).teacher["strong"].logits_BC
    shifted = precision is Precision.FP16
    assert bool((kept_BC.amax(dim=-1) == 0).all()) == shifted
    assert torch.equal(kept_BC, own_BC) == (not shifted)


def test_rows_are_those_of_the_training_split(tmp_path: Path) -> None:
    tiny = kitchen(tmp_path, Precision.FP32)
    workbench = small_workbench(tiny.data, cache=tiny.open())
    signals = served(RowsConfig(), workbench, small_student())
    assert signals.rows_B is not None
    assert signals.rows_B.tolist() == [5, 0, 17, 40]
    assert served(PlainConfig(), workbench, small_student()).rows_B is None


@dataclass(frozen=True)
class Pair(Solo):
    """A team of two, of which nobody speaks with the other."""

    size: int = 2


def test_a_table_by_sample_is_refused_to_several_workers() -> None:
    with pytest.raises(TrialFailed, match=r"the 2 workers of a slot .* give a slot one worker"):
        StepInputs(RowsConfig(), small_workbench(), small_student(), Pair())
