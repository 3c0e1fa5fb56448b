"""Networks: the published sizes, every input, and what a wrong name says."""

from __future__ import annotations

import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from trainables.config.models import LIBRARIES, ModelConfig, ModelName
from trainables.errors import ConfigError
from trainables.models import MODELS, build_model, check_logits
from trainables.models.resized import Resize
from trainables.models.resnet import BasicBlock
from trainables.models.shuffle import ChannelShuffle
from trainables.models.weights import count_parameters
from trainables.models.wide_resnet import WideBlock

# Millions of parameters with 100 classes and RGB images, as the tables of Contrastive Representation
# Distillation and of Decoupled Knowledge Distillation round them; exact counts by the published layouts.
PARAMETERS = {
    ModelName.RESNET20: 278_324,
    ModelName.RESNET32: 472_756,
    ModelName.RESNET56: 861_620,
    ModelName.RESNET110: 1_736_564,
    ModelName.RESNET8X4: 1_233_540,
    ModelName.RESNET32X4: 7_433_860,
    ModelName.WRN_16_2: 703_284,
    ModelName.WRN_40_1: 569_780,
    ModelName.WRN_40_2: 2_255_156,
    ModelName.VGG8: 3_965_028,
    ModelName.VGG13: 9_462_180,
    ModelName.RESNET50: 23_705_252,
    ModelName.MOBILENETV2: 812_836,
    ModelName.SHUFFLENETV1: 949_258,
    ModelName.SHUFFLENETV2: 1_355_528,
}

FAMILIES = (
    *(ModelName.MLP, ModelName.CONVNET, ModelName.RESNET8, ModelName.RESNET8X4, ModelName.WRN_16_2),
    *(ModelName.VGG8, ModelName.VGG13),
)
DEEP_FAMILIES = (
    *(ModelName.RESNET50, ModelName.MOBILENETV2),
    *(ModelName.SHUFFLENETV1, ModelName.SHUFFLENETV2),
)


def built(
    name: ModelName, *, n_classes: int = 10, in_channels: int = 3, width: int | None = None
) -> nn.Module:
    return build_model(ModelConfig(name=name, width=width), n_classes=n_classes, in_channels=in_channels)


def test_every_name_but_those_of_libraries_is_in_the_table() -> None:
    assert set(MODELS) == set(ModelName) - LIBRARIES


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_networks_have_the_published_number_of_parameters(name: ModelName, count: int) -> None:
    with torch.device("meta"):
        assert count_parameters(built(name, n_classes=100)) == count


@pytest.mark.parametrize("name", MODELS)
def test_every_network_takes_the_smallest_grey_images(name: ModelName) -> None:
    check_logits(built(name, in_channels=1, width=4), torch.zeros(2, 1, 8, 8), n_classes=10)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_takes_images_of_every_size(name: ModelName) -> None:
    network = built(name, width=4)
    for side in (8, 9, 14, 28, 32, 64):
        check_logits(network, torch.zeros(2, 3, side, side), n_classes=10)


@pytest.mark.parametrize("name", DEEP_FAMILIES)
def test_deep_families_take_images_of_odd_and_of_larger_size(name: ModelName) -> None:
    network = built(name, width=2)
    for side in (9, 40):
        assert network(torch.zeros(2, 3, side, side)).shape == (2, 10)


@pytest.mark.parametrize("name", [ModelName.MLP, ModelName.CONVNET, ModelName.RESNET8, ModelName.VGG8])
def test_small_networks_train_on_the_smallest_images(name: ModelName) -> None:
    torch.manual_seed(0)
    network = built(name, in_channels=1, width=8)
    images, labels = torch.rand(16, 1, 8, 8), torch.arange(16) % 10
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05)
    losses = []
    for _ in range(12):
        loss = nn.functional.cross_entropy(network(images), labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        (ModelName.RESNET8, [8, 8, 16, 32]),
        (ModelName.RESNET8X4, [4, 8, 16, 32]),
        (ModelName.WRN_16_2, [4, 8, 16, 32]),
        (ModelName.VGG8, [8, 16, 32, 64, 64]),
        (ModelName.CONVNET, [8, 16, 32]),
    ],
)
def test_a_width_is_that_of_the_first_stage_and_the_others_follow(name: ModelName, stages: list[int]) -> None:
    network = built(name, width=8)
    seen: list[int] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            channels = module.out_channels
            if len(seen) < len(stages) and channels == stages[len(seen)]:
                seen.append(channels)
            assert channels in stages
    assert seen == stages


@pytest.mark.parametrize(
    ("name", "width"),
    [
        *((ModelName.WRN_16_2, 32), (ModelName.RESNET50, 64), (ModelName.MOBILENETV2, 8)),
        *((ModelName.SHUFFLENETV1, 240), (ModelName.SHUFFLENETV2, 116)),
    ],
)
def test_the_width_of_the_paper_is_the_default(name: ModelName, width: int) -> None:
    with torch.device("meta"):
        assert count_parameters(built(name, width=width)) == count_parameters(built(name))


@pytest.mark.parametrize(
    ("name", "width", "stages"),
    [
        (ModelName.RESNET50, 16, [64, 128, 256, 512]),
        (ModelName.MOBILENETV2, 4, [4, 6, 8, 16, 24, 40, 80]),
        (ModelName.SHUFFLENETV1, 60, [60, 120, 240]),
        (ModelName.SHUFFLENETV1, 61, [60, 120, 240]),
        (ModelName.SHUFFLENETV1, 1, [9, 18, 36]),
        (ModelName.SHUFFLENETV2, 48, [48, 96, 192]),
        (ModelName.SHUFFLENETV2, 47, [48, 96, 192]),
    ],
)
def test_stages_of_deep_families_follow_the_width_in_whole_groups(
    name: ModelName, width: int, stages: list[int]
) -> None:
    network: Any = built(name, width=width).eval()
    seen: list[int] = []
    for module in network.blocks if name is ModelName.MOBILENETV2 else _stages(network):
        module.register_forward_hook(lambda _, inputs, output: seen.append(output.shape[1]))
    with torch.no_grad():
        network(torch.zeros(1, 3, 8, 8))
    assert seen == stages


def _stages(network: Any) -> list[nn.Module]:
    return [module for name, module in network.named_children() if name.startswith("layer")]


@pytest.mark.parametrize(
    ("name", "width", "count"),
    [
        (ModelName.MOBILENETV2, 4, 1280),
        (ModelName.MOBILENETV2, 32, 2560),
        (ModelName.SHUFFLENETV2, 48, 1024),
        (ModelName.SHUFFLENETV2, 244, 2048),
    ],
)
def test_heads_grow_only_in_networks_wider_than_the_papers(name: ModelName, width: int, count: int) -> None:
    with torch.device("meta"):
        network = built(name, width=width)
    assert [module.in_features for module in network.modules() if isinstance(module, nn.Linear)] == [count]


def test_mobilenetv2_at_full_width_is_the_papers_but_for_its_first_block() -> None:
    """torchvision's network is the paper's, 3.4 million parameters; the stem is the same."""
    with torch.device("meta"):
        ours = count_parameters(built(ModelName.MOBILENETV2, n_classes=1000, width=16))
        papers = count_parameters(
            build_model(torchvision_config("mobilenet_v2"), n_classes=1000, in_channels=3)
        )
    first_expansion = 32 * 32 + 2 * 32
    assert ours == papers + first_expansion


def test_shufflenetv2_is_the_papers_but_for_its_stem() -> None:
    with torch.device("meta"):
        ours = count_parameters(built(ModelName.SHUFFLENETV2, n_classes=1000))
        papers = count_parameters(
            build_model(torchvision_config("shufflenet_v2_x1_0"), n_classes=1000, in_channels=3)
        )
    assert ours == papers - 24 * 3 * (3 * 3 - 1)


def test_resnet50_is_the_papers_but_for_its_stem() -> None:
    with torch.device("meta"):
        ours = count_parameters(built(ModelName.RESNET50, n_classes=1000))
        papers = count_parameters(build_model(torchvision_config("resnet50"), n_classes=1000, in_channels=3))
    assert ours == papers - 64 * 3 * (7 * 7 - 3 * 3)


def test_a_shuffle_deals_each_group_out_to_all_new_groups() -> None:
    channels = torch.arange(6.0).view(1, 6, 1, 1)
    assert ChannelShuffle(3)(channels).flatten().tolist() == [0, 2, 4, 1, 3, 5]
    assert torch.equal(ChannelShuffle(2)(ChannelShuffle(3)(channels)), channels)


def test_a_shufflenet_mixes_the_groups() -> None:
    """Without the shuffle a group of the second unit's output would hear of its own third alone."""
    torch.manual_seed(0)
    network: Any = built(ModelName.SHUFFLENETV1, width=36).eval()
    images = torch.rand(1, 36, 4, 4, requires_grad=True)
    unit = network.layer1[1]
    branch = unit.bn3(unit.conv3(unit.bn2(unit.conv2(unit.shuffle(unit.bn1(unit.conv1(images)))))))
    (gradient,) = torch.autograd.grad(branch[:, :12].square().sum(), images)
    assert (gradient.abs().sum(dim=(0, 2, 3)) > 0).all()


@pytest.mark.parametrize(("side", "resolution"), [(8, 12), (28, 20), (9, 8), (8, 8)])
def test_a_resolution_resizes_what_the_network_sees(side: int, resolution: int) -> None:
    torch.manual_seed(0)
    config = ModelConfig(name=ModelName.RESNET8, width=4, resolution=resolution)
    resized: Any = build_model(config, n_classes=10, in_channels=1).eval()
    images = torch.rand(3, 1, side, side)
    seen: list[torch.Size] = []
    resized.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    expected = interpolate(images, size=(resolution, resolution), mode="bilinear", antialias=True)
    assert torch.equal(resized(images), resized.network(expected))
    assert seen[0][-2:] == (resolution, resolution)


def test_a_resized_network_starts_with_the_weights_of_the_plain_one() -> None:
    states = []
    for resolution in (None, 12):
        torch.manual_seed(0)
        config = ModelConfig(name=ModelName.RESNET8, width=4, resolution=resolution)
        states.append(build_model(config, n_classes=10, in_channels=1).state_dict())
    plain, resized = states
    assert [f"network.{name}" for name in plain] == list(resized)
    assert all(torch.equal(a, b) for a, b in zip(plain.values(), resized.values(), strict=True))


def test_shrinking_averages_so_that_no_pixel_is_passed_over() -> None:
    stripes = torch.tensor([0.0, 1.0]).repeat(8).expand(1, 1, 16, 16)
    assert Resize(4)(stripes).sub(0.5).abs().max() < 0.1


def test_the_smallest_width_still_builds() -> None:
    assert built(ModelName.WRN_16_2, width=1)(torch.zeros(2, 3, 8, 8)).shape == (2, 10)


def test_parameters_are_named_as_in_the_published_checkpoints() -> None:
    with torch.device("meta"):
        resnet = set(built(ModelName.RESNET8X4).state_dict())
        wide = set(built(ModelName.WRN_16_2).state_dict())
        vgg = set(built(ModelName.VGG13).state_dict())
        deep = {name: set(built(name).state_dict()) for name in DEEP_FAMILIES}
    assert {"conv1.weight", "layer1.0.downsample.0.weight", "layer3.0.bn2.running_var", "fc.bias"} <= resnet
    assert {
        "block1.layer.0.convShortcut.weight",
        "block3.layer.1.bn1.weight",
        "bn1.bias",
        "fc.weight",
    } <= wide
    assert {"block0.0.bias", "block0.1.running_mean", "block4.3.weight", "classifier.weight"} <= vgg
    assert {"layer1.0.shortcut.0.weight", "layer4.2.bn3.bias", "linear.bias"} <= deep[ModelName.RESNET50]
    assert {
        "conv1.0.weight",
        "blocks.0.0.conv.7.running_var",
        "blocks.6.0.conv.6.weight",
        "conv2.1.bias",
        "classifier.0.weight",
    } <= deep[ModelName.MOBILENETV2]
    assert {"layer1.0.conv3.weight", "layer2.7.bn2.weight", "linear.bias"} <= deep[ModelName.SHUFFLENETV1]
    assert {"layer1.0.conv5.weight", "layer2.7.bn3.weight", "conv2.weight"} <= deep[ModelName.SHUFFLENETV2]


def test_a_residual_block_passes_its_input_on_when_its_branch_is_silent() -> None:
    images = torch.rand(2, 4, 8, 8)
    basic, wide = BasicBlock(4, 4, 1), WideBlock(4, 4, 1)
    nn.init.zeros_(basic.conv2.weight)
    nn.init.zeros_(wide.conv2.weight)
    assert torch.equal(basic(images), images)
    assert torch.equal(wide(-images), -images)


@pytest.mark.parametrize(("side", "expected"), [(28, 3), (32, 4), (64, 4)])
def test_vgg_pools_a_fourth_time_for_large_images_alone(side: int, expected: int) -> None:
    network: Any = built(ModelName.VGG8, width=2)
    sides: list[int] = []
    network.block4.register_forward_pre_hook(lambda module, inputs: sides.append(inputs[0].shape[-1]))
    network(torch.zeros(1, 3, side, side))
    assert sides == [expected]


def test_the_same_seed_gives_the_same_weights() -> None:
    images = torch.rand(2, 3, 8, 8)
    outputs = []
    for _ in range(2):
        torch.manual_seed(3)
        outputs.append(built(ModelName.RESNET8).eval()(images))
    assert torch.equal(outputs[0], outputs[1])


def torchvision_config(variant: str, **arguments: bool | int | float | str) -> ModelConfig:
    return ModelConfig(name=ModelName.TORCHVISION, variant=variant, arguments=arguments)


def test_a_torchvision_network_has_the_classes_of_the_data() -> None:
    network = build_model(torchvision_config("squeezenet1_1", dropout=0.1), n_classes=7, in_channels=3)
    check_logits(network, torch.zeros(2, 3, 32, 32), n_classes=7)


def test_a_torchvision_network_sees_a_grey_image_as_one_in_all_colours() -> None:
    networks = []
    for in_channels in (1, 3):
        torch.manual_seed(0)
        config = torchvision_config("resnet18")
        networks.append(build_model(config, n_classes=7, in_channels=in_channels).eval())
    grey = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(networks[0](grey), networks[1](grey.expand(-1, 3, -1, -1)))


def test_an_unknown_variant_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no classifier 'resnet19'; nearest: resnet18"):
        build_model(torchvision_config("resnet19"), n_classes=7, in_channels=3)


def test_a_detector_of_torchvision_is_no_classifier() -> None:
    with pytest.raises(ConfigError, match="no classifier 'fasterrcnn_resnet50_fpn'"):
        build_model(torchvision_config("fasterrcnn_resnet50_fpn"), n_classes=7, in_channels=3)


def test_arguments_that_torchvision_does_not_take_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"resnet18 does not take `arguments` \{'depth': 3\}"):
        build_model(torchvision_config("resnet18", depth=3), n_classes=7, in_channels=3)


def test_pretrained_weights_are_no_argument() -> None:
    with pytest.raises(ConfigError, match=r"may not hold weights: .* weights come from a checkpoint"):
        build_model(torchvision_config("resnet18", weights="DEFAULT"), n_classes=7, in_channels=3)


def test_two_channels_are_refused_for_torchvision() -> None:
    with pytest.raises(ConfigError, match="resnet18 cannot take images of 2 channels, only of 3 or 1"):
        build_model(torchvision_config("resnet18"), n_classes=7, in_channels=2)


@pytest.fixture
def user_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "user_models_for_tests.py").write_text(
        "from torch import nn\n"
        "def make(n_classes, units=3):\n"
        "    return nn.Sequential(nn.Flatten(), nn.LazyLinear(units), nn.Linear(units, n_classes))\n"
        "def number(n_classes):\n"
        "    return n_classes\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "user_models_for_tests", raising=False)


@pytest.mark.usefixtures("user_models")
def test_a_factory_is_given_the_classes_and_its_arguments() -> None:
    config = ModelConfig(factory="user_models_for_tests:make", arguments={"units": 5})
    network: Any = build_model(config, n_classes=7, in_channels=1)
    assert (network[2].in_features, network[2].out_features) == (5, 7)


@pytest.mark.usefixtures("user_models")
def test_a_factory_that_gives_no_module_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"'user_models_for_tests:number' returned a int; return a torch\.nn"
    ):
        build_model(ModelConfig(factory="user_models_for_tests:number"), n_classes=7, in_channels=1)


def test_checking_leaves_model_and_random_state_as_they_were() -> None:
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Dropout(), nn.Linear(12, 4)).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = torch.rand(2, 3, 2, 2)
    state = torch.get_rng_state()
    check_logits(network, images, n_classes=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert not network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


class Returns(nn.Module):
    """A network with a given answer."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, images_BCHW: Tensor) -> Any:
        return self.answer(images_BCHW, self.training)


Auxiliary = namedtuple("Auxiliary", ["logits", "extra"])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            lambda x, training: x.new_zeros(2, 5),
            r"torch.float32 of shape \(2, 5\) in evaluation mode; .*\(2, 4\)",
        ),
        (lambda x, training: x.new_zeros(2, 4).long(), "torch.int64 of shape"),
        (lambda x, training: {"logits": x}, "returns a dict in evaluation mode"),
        (
            lambda x, training: Auxiliary(x, x) if training else x.new_zeros(2, 4),
            "a Auxiliary in training mode",
        ),
        (
            lambda x, training: x @ x.new_zeros(3, 3),
            r"fails in evaluation mode on a batch of shape \(2, 1, 8, 8\)",
        ),
    ],
)
def test_other_outputs_than_logits_are_refused(answer: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_logits(Returns(answer), torch.zeros(2, 1, 8, 8), n_classes=4)
