"""Features read off a network's calls: plain, compiled, in autocast, averaged, and in ranks that share it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.unit.trainables.models.tapped_networks import (
    CLASSES,
    RESNET,
    built,
    check_compiled_features,
    images,
    tap_of,
)
from trainables.errors import TrialFailed
from trainables.models.features import Tapped, untapped
from trainables.models.foreign.copies import copied
from trainables.training.learners.ema import WeightAverage

NAMES = ("stem", "stage1", "stage2.pre", "last", "embedding", "first_conv", "energy.stage2")


def by_hand(network: nn.Module, shown: Tensor) -> dict[str, Tensor]:
    """The features of resnet8, computed layer by layer."""
    part: Any = network.get_submodule
    first = part("conv1")(shown)
    stem = part("bn1")(first).relu()
    stage1 = part("layer1")(stem)
    block = part("layer2.0")
    inside = block.bn2(block.conv2(block.bn1(block.conv1(stage1)).relu()))
    pre = inside + block.downsample(stage1)
    last = part("layer3")(pre.relu())
    return {
        "stem": stem,
        "stage1": stage1,
        "stage2.pre": pre,
        "last": last,
        "embedding": last.mean(dim=(2, 3)),
        "first_conv": first,
        "energy.stage2": pre.relu().square().mean(dim=1),
    }


def test_features_are_what_the_network_computes() -> None:
    network, shown = built(**RESNET).eval(), images()
    tap = tap_of(network, *NAMES)
    logits, features = tap.during(lambda: network(shown))
    expected = by_hand(network, shown)
    assert list(features) == list(NAMES)
    for name in NAMES:
        torch.testing.assert_close(features[name], expected[name])
        assert tap.shapes[name] == tuple(features[name].shape[1:])
    assert torch.equal(logits, network(shown))


def test_of_several_names_the_first_that_the_network_has_is_read_under_its_own() -> None:
    network, shown = built(**RESNET).eval(), images()
    tap = tap_of(network, "tokens|last|embedding", "embedding")
    assert list(tap.shapes) == ["last", "embedding"]
    features = tap.during(lambda: network(shown))[1]
    assert torch.equal(features["last"], tap_of(network, "last").during(lambda: network(shown))[1]["last"])
    with pytest.raises(TrialFailed, match="has no feature 'tokens'"):
        tap_of(network, "tokens|stage9")


def test_all_stages_that_a_network_has_are_asked_for_by_one_name() -> None:
    network, shown = built(**RESNET).eval(), images()
    tap = tap_of(network, "stages", "embedding", "stage2")
    assert tap.names == ("stage1", "stage2", "stage3", "embedding")
    assert tap.shapes["stage3"] == (16, 4, 4)
    features = tap.during(lambda: network(shown))[1]
    assert list(features) == list(tap.names)
    assert tap_of(built(name="vgg8", width=4), "stages", side=32).names == (
        *("stage1", "stage2", "stage3", "stage4"),
    )
    energies = tap_of(network, "energy.stages", "stages")
    assert energies.names == (
        *("energy.stage1", "energy.stage2", "energy.stage3"),
        *("stage1", "stage2", "stage3"),
    )
    assert energies.shapes["energy.stage3"] == (4, 4)


def test_stages_come_in_their_order_where_a_file_names_them_in_another() -> None:
    network = built(**RESNET)
    tap = tap_of(network, "stages", stated={"stage10": "layer3", "stage2": "layer2", "stage1": "layer1"})
    assert tap.names == ("stage1", "stage2", "stage10")


def test_a_network_without_stages_has_what_is_named_beside_them_or_is_refused() -> None:
    network = built(name="mlp")
    assert tap_of(network, "stages|embedding").names == ("embedding",)
    assert tap_of(built(**RESNET), "stages|embedding").names == ("stage1", "stage2", "stage3")
    for name in ("stages", "energy.stages"):
        with pytest.raises(TrialFailed, match=r"Mlp has no feature 'stages'; .*`features: {stage1: PATH}`"):
            tap_of(network, name)


def test_a_gradient_flows_through_features() -> None:
    network, shown = built(**RESNET), images()
    _, features = tap_of(network, "stage2", "embedding").during(lambda: network(shown))
    torch.autograd.backward(features["stage2"].sum())
    assert network.get_submodule("layer2.0.conv1").weight.grad is not None
    assert network.get_submodule("layer3.0.conv1").weight.grad is None


def test_nothing_stays_on_the_network() -> None:
    network, shown = built(**RESNET), images()
    hooks = [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in network.modules()]
    tap = tap_of(network, *NAMES)
    tap.during(lambda: network(shown))
    with pytest.raises(RuntimeError):
        tap.during(lambda: network(images(channels=1)))
    assert [len(p._forward_hooks) + len(p._forward_pre_hooks) for p in network.modules()] == hooks


class Drawing(nn.Module):
    """Draws also in evaluation mode, and counts its calls."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, CLASSES)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, shown: Tensor) -> Tensor:
        self.calls += 1
        pooled = shown.mean(dim=(2, 3))
        logits: Tensor = self.fc(pooled + torch.rand(()))
        return logits


def test_looking_for_features_changes_neither_network_nor_random_state() -> None:
    network = Drawing()
    network.fc.eval()  # a part that is frozen in evaluation mode stays so
    before = torch.get_rng_state()
    tap = tap_of(network, "embedding")
    assert torch.equal(torch.get_rng_state(), before)
    assert network.calls == 0
    assert [part.training for part in network.modules()] == [True, False]
    assert tap.shapes == {"embedding": (3,)}


def overwriting() -> nn.Module:
    """A network whose activations overwrite what they are given."""
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3), nn.ReLU(inplace=True)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES)),
    )


def test_what_is_overwritten_in_place_is_copied_before() -> None:
    network: Any = overwriting()
    shown = images()
    _, features = tap_of(network, "first_conv", "stem", "last", "stage1.pre").during(lambda: network(shown))
    assert torch.equal(features["first_conv"], network[0](shown))
    assert torch.equal(features["stem"], network[0](shown).relu())
    assert (features["stage1.pre"] < 0).any()
    assert torch.equal(features["stage1.pre"].relu(), features["last"])
    torch.autograd.backward(features["first_conv"].sum())
    assert network[0].weight.grad is not None


def test_features_keep_the_precision_of_the_call() -> None:
    network, shown = built(**RESNET), images()
    tap = tap_of(network, "stage2", "energy.stage2")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        # first_conv is what autocast computes in bf16; batch norm keeps it so on the CPU.
        _, features = tap.during(lambda: network(shown))
    assert features["stage2"].dtype is torch.bfloat16
    assert features["energy.stage2"].dtype is torch.float32
    _, double = tap_of(network, "stage2").during(lambda: network(shown))
    assert double["stage2"].dtype is torch.float32


def test_a_tapped_network_gives_its_features_with_its_output() -> None:
    network, shown = built(**RESNET), images()
    tap = tap_of(network, *NAMES)
    tapped = Tapped(network, tap)
    logits, features = tapped(shown)
    alone, by_tap = tap.during(lambda: network(shown))
    assert torch.equal(logits, alone)
    assert list(features) == list(NAMES)
    assert all(torch.equal(features[name], by_tap[name]) for name in NAMES)
    # The network itself keeps nothing of what it is shown.
    network(shown)
    assert tapped._listeners._reading.read == {}


def test_a_call_that_failed_leaves_nobody_listening() -> None:
    network = built(**RESNET)
    tapped = Tapped(network, tap_of(network, *NAMES))
    with pytest.raises(RuntimeError):
        tapped(images(channels=1))
    network(images())
    assert tapped._listeners._reading.read == {}


def test_copies_of_a_tapped_network_are_not_listened_to() -> None:
    network = built(**RESNET)
    plain = [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in network.modules()]
    Tapped(network, tap_of(network, *NAMES))
    average = WeightAverage(network, 0.9).model
    for free in (average, untapped(copied(network)), untapped(network)):
        assert [len(p._forward_hooks) + len(p._forward_pre_hooks) for p in free.modules()] == plain


def test_features_come_out_of_a_traced_forward_pass() -> None:
    check_compiled_features("aot_eager")


def test_in_place_activations_are_traced_too() -> None:
    network = overwriting()
    tap = tap_of(network, "first_conv", "stage1.pre", "last")
    shown = images()
    _, expected = tap.during(lambda: network(shown))
    _, found = torch.compile(Tapped(network, tap), backend="aot_eager", fullgraph=True)(shown)
    for name, feature in expected.items():
        torch.testing.assert_close(found[name], feature)
    assert (found["stage1.pre"] < 0).any()


class Hiding(nn.Module):
    """Goes another way in training."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, CLASSES)

    def forward(self, shown: Tensor) -> Tensor:
        if self.training:
            return shown.new_zeros(len(shown), CLASSES)
        logits: Tensor = self.fc(self.conv(shown).mean(dim=(2, 3)))
        return logits


def test_a_network_that_makes_no_such_feature_in_training_is_told() -> None:
    network = Hiding()
    with pytest.raises(TrialFailed, match="Hiding made no first_conv, embedding in this call"):
        tap_of(network, "first_conv", "embedding").during(lambda: network(images()))
