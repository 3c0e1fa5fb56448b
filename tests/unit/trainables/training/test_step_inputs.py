"""What objectives ask for beside logits and labels: dense logits, unshifted logits, rows."""

from __future__ import annotations

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
from trainables.config.objective_base import EMBEDDING
from trainables.config.objectives import CbdConfig
from trainables.data.splits import split_facts
from trainables.errors import CacheError, TrialFailed
from trainables.models import build_model
from trainables.models.embedding import classifier_of
from trainables.models.features import Tapped
from trainables.models.features.feature_map_logits import DenseLogits
from trainables.models.modes import evaluating
from trainables.signals import Signals
from trainables.teacher.online import OnlineTeacher
from trainables.training.learners.answers import Asked
from trainables.training.loaded.teacher_answers import CacheBesideTeacher
from trainables.training.ranks import Share
from trainables.training.step_inputs import StepInputs, student_tap
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
    tap = student_tap(config, model, workbench.data, CPU, {})
    inputs = StepInputs(config, workbench, model, tap=tap)
    rows_B = torch.tensor([5, 0, 17, 40])
    forward = model if tap is None else Tapped(model, tap)
    asked = Asked(forward, torch.contiguous_format, TrainingPrecision.FP32, tap)
    return inputs.signals(asked, 2, Share(rows_B, 1.0))


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


class EmbeddingConfig(PlainConfig):
    """Asks for what both networks' last linear layers are given."""

    @property
    def student_features(self) -> tuple[str, ...]:
        return (EMBEDDING,)

    @property
    def teacher_features(self) -> tuple[str, ...]:
        return (EMBEDDING,)


class TogetherConfig(EmbeddingConfig):
    """Shows the student both banks as one batch."""

    one_pass: ClassVar[bool] = True


class ImagesConfig(PlainConfig):
    """Asks for the images."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.IMAGES})


def embedded(folder: Path) -> Workbench:
    tiny = kitchen(folder, Precision.FP32).but(features=dict.fromkeys(("weak", "strong"), (EMBEDDING,)))
    tiny.build()
    return small_workbench(tiny.data, cache=tiny.open())


def test_features_of_both_come_by_bank_and_name(tmp_path: Path) -> None:
    workbench, model = embedded(tmp_path), small_student()
    signals = served(EmbeddingConfig(), workbench, model)
    assert signals.features.keys() == {"weak", "strong"}
    for bank in ("weak", "strong"):
        own_BD = signals.features[bank][EMBEDDING]
        assert own_BD.requires_grad
        torch.testing.assert_close(classifier_of(model, 3)(own_BD), signals.student[bank])
    taught_BD = signals.teacher["strong"].features[EMBEDDING]
    assert taught_BD.shape == (4, 256)
    assert not taught_BD.requires_grad


def test_an_objective_is_made_for_the_shapes_of_both(tmp_path: Path) -> None:
    workbench = embedded(tmp_path)
    model = network(name="mlp")
    tap = student_tap(EmbeddingConfig(), model, workbench.data, CPU, {})
    setting = StepInputs(EmbeddingConfig(), workbench, model, tap=tap).setting(5)
    assert setting.teacher_shapes == {EMBEDDING: (256,)}
    assert setting.student_shapes[EMBEDDING] == (classifier_of(network(name="mlp"), 3).weight.shape[1],)
    assert setting.image_shape == (1, 8, 8)
    assert setting.labels_N is not None
    assert torch.equal(setting.labels_N, workbench.data.train.labels)


def test_banks_seen_together_share_their_batch_statistics(tmp_path: Path) -> None:
    workbench, model = embedded(tmp_path), network(name="convnet", width=4)
    together = served(TogetherConfig(), workbench, model)
    rows_B = torch.tensor([5, 0, 17, 40])
    both = torch.cat([workbench.images(bank, 2, rows_B) for bank in ("weak", "strong")])
    expected = network(name="convnet", width=4)(both)
    assert torch.equal(together.student["weak"], expected[:4])
    assert torch.equal(together.student["strong"], expected[4:])
    assert together.features["strong"][EMBEDDING].shape[0] == 4
    apart = served(EmbeddingConfig(), workbench, network(name="convnet", width=4))
    assert not torch.equal(apart.student["weak"], together.student["weak"])


def test_images_are_those_that_the_student_was_given(tmp_path: Path) -> None:
    tiny = kitchen(tmp_path, Precision.FP32)
    workbench = small_workbench(tiny.data, cache=tiny.open())
    signals = served(ImagesConfig(), workbench, small_student())
    shown = workbench.images("weak", 2, torch.tensor([5, 0, 17, 40]))
    assert torch.equal(signals.images["weak"], shown)
    assert not served(PlainConfig(), workbench, small_student()).images


def test_a_student_without_a_cosine_head_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TrialFailed, match=r"cosine head as wide as the teacher's"):
        StepInputs(CbdConfig(), embedded(tmp_path), small_student())


def test_features_that_the_cache_lacks_are_asked_of_the_teacher_beside(tmp_path: Path) -> None:
    tiny = kitchen(tmp_path, Precision.FP32)
    online = OnlineTeacher(tiny.live(), VIEWS)
    source = CacheBesideTeacher(tiny.open(), lambda: online)
    signals = served(EmbeddingConfig(), small_workbench(tiny.data, cache=source), small_student())
    kept = served(EmbeddingConfig(), embedded(tmp_path / "kept"), small_student())
    assert torch.equal(signals.teacher["strong"].logits_BC, kept.teacher["strong"].logits_BC)
    torch.testing.assert_close(
        signals.teacher["strong"].features[EMBEDDING],
        kept.teacher["strong"].features[EMBEDDING],
        rtol=1e-3,
        atol=1e-3,
    )


def test_a_feature_that_nobody_has_is_named(tmp_path: Path) -> None:
    tiny = kitchen(tmp_path, Precision.FP32)
    workbench = small_workbench(tiny.data, cache=tiny.open())
    with pytest.raises(CacheError, match=r"does not keep embedding .* name it in cache.features"):
        served(EmbeddingConfig(), workbench, small_student())
