"""Which parts of a network are its stages: stated by ours, seen in those of others, named in the file."""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.unit.trainables.models.tapped_networks import CLASSES, CPU, built, images, tap_of
from trainables.config import ClassRows, ModelConfig, ModelName, Normalisation
from trainables.config.models import LIBRARIES
from trainables.errors import CacheError, TrialFailed
from trainables.models.features import Extended, Extra
from trainables.models.features.search import Found, find_points
from trainables.models.foreign.aligned import aligned
from trainables.models.foreign.logits import with_logits
from trainables.models.renormalised import renormalised
from trainables.models.resized import resized

META = torch.device("meta")


def unweighed(**config: Any) -> nn.Module:
    """A network without weights: large ones are built and run at once."""
    if config.get("name") is ModelName.TIMM:  # whose earlier versions compute numbers while they build
        return built(**config).to(META)
    with META:
        return built(**config)


def found(network: nn.Module, *, side: int = 32, channels: int = 3, **stated: str) -> Found:
    named = {name.replace("__", "."): path for name, path in stated.items()}
    return find_points(
        network,
        n_classes=CLASSES,
        input_shape=(channels, side, side),
        device=next(network.parameters()).device,
        stated=named,
        error=TrialFailed,
    )


def shapes(
    network: nn.Module, *, side: int = 32, channels: int = 3, **stated: str
) -> dict[str, tuple[int, ...]]:
    places = found(network, side=side, channels=channels, **stated).places
    return {name: place.shape[1:] for name, place in places.items()}


def stages_of(network: nn.Module, side: int = 32) -> dict[str, str]:
    """Paths of the stem and of the stages."""
    places = found(network, side=side).places
    return {name: p.point.path for name, p in places.items() if re.fullmatch(r"stem|stage\d", name)}


# Sides of the maps of 32x32 images, stem first, and channels at the literature's widths.
PUBLISHED = {
    ModelName.CONVNET: [(32, 32), (64, 16), (128, 8)],
    ModelName.RESNET8: [(16, 32), (16, 32), (32, 16), (64, 8)],
    ModelName.RESNET8X4: [(32, 32), (64, 32), (128, 16), (256, 8)],
    ModelName.WRN_16_2: [(16, 32), (32, 32), (64, 16), (128, 8)],
    ModelName.VGG8: [(64, 32), (128, 16), (256, 8), (512, 4), (512, 4)],
    ModelName.VGG13: [(64, 32), (128, 16), (256, 8), (512, 4), (512, 4)],
    ModelName.RESNET50: [(64, 32), (256, 32), (512, 16), (1024, 8), (2048, 4)],
    ModelName.MOBILENETV2: [(16, 16), (12, 16), (16, 8), (48, 4), (1280, 2)],
    ModelName.SHUFFLENETV1: [(24, 32), (240, 16), (480, 8), (960, 4)],
    ModelName.SHUFFLENETV2: [(24, 32), (116, 16), (232, 8), (1024, 4)],
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_network_of_ours_states_its_stages(name: ModelName) -> None:
    seen = shapes(built(name=name))
    maps = [seen["stem"], *(seen[f"stage{number}"] for number in range(1, len(PUBLISHED[name])))]
    assert maps == [(channels, side, side) for channels, side in PUBLISHED[name]]
    assert f"stage{len(maps)}" not in seen
    assert seen["last"] == maps[-1]
    assert len(seen["embedding"]) == 1
    assert seen["first_conv"][1:] == maps[0][1:]


@pytest.mark.parametrize("name", sorted(set(ModelName) - LIBRARIES))
def test_no_network_by_name_is_left_to_be_guessed(name: ModelName) -> None:
    assert hasattr(type(built(name=name)), "STAGES")


@pytest.mark.parametrize(
    "name",
    sorted({*PUBLISHED} - {ModelName.SHUFFLENETV2}),
)
def test_each_stage_has_its_map_before_the_activation(name: ModelName) -> None:
    network = built(name=name, width=9).eval()
    stages = [f"stage{number}" for number in range(1, len(PUBLISHED[name]))]
    both = [*stages, *(f"{stage}.pre" for stage in stages)]
    _, features = tap_of(network, *both).during(lambda: network(images(2)))
    for stage in stages:
        activated, before = features[stage], features[f"{stage}.pre"]
        is_raw = torch.equal(activated, before)
        assert is_raw or torch.equal(activated, before.relu())
        assert (before < 0).any()
        assert is_raw == (name == ModelName.WRN_16_2 or (name == ModelName.MOBILENETV2 and stage != "stage4"))


def test_a_deeper_network_has_its_stages_where_the_last_block_is() -> None:
    place = found(built(name=ModelName.RESNET20, width=4)).places["stage2.pre"]
    assert (place.point.path, place.point.is_input) == ("layer2.2.relu", True)


@pytest.mark.parametrize(
    ("variant", "side", "expected"),
    [
        ("resnet18", 64, ["relu", "layer1", "layer2", "layer3", "layer4"]),
        ("resnet50", 64, ["relu", "layer1", "layer2", "layer3", "layer4"]),
        ("resnet18", 32, ["relu", "layer1", "layer2", "layer3", "avgpool"]),
        (
            "mobilenet_v3_small",
            64,
            ["features.0", "features.1", "features.3", "features.8", "features"],
        ),
        ("convnext_tiny", 64, ["features.0", "features.1", "features.3", "features.5", "features"]),
        # Their `avgpool` makes 7x7 of maps of 2x2, and 6x6 of 3x3: larger than what it is given.
        (
            "vgg11",
            64,
            ["features.1", "features.4", "features.9", "features.14", "features.19", "features"],
        ),
        ("alexnet", 128, ["features.1", "features.4", "features.11", "features"]),
    ],
)
def test_stages_of_torchvision_are_seen(variant: str, side: int, expected: list[str]) -> None:
    pytest.importorskip("torchvision")
    network = unweighed(name=ModelName.TORCHVISION, variant=variant)
    assert list(stages_of(network, side).values()) == expected


def test_blocks_that_halve_without_padding_are_steps() -> None:
    """Inception's turn 35 positions into 17 and 17 into 8; its branches hold maps of both sizes."""
    pytest.importorskip("torchvision")
    network = unweighed(name=ModelName.TORCHVISION, variant="inception_v3", arguments={"init_weights": False})
    assert list(stages_of(network, 299).values())[-3:] == ["Mixed_5d", "Mixed_6e", "Mixed_7c"]


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("resnet18", ["act1", "layer1", "layer2", "layer3", "layer4"]),
        ("resnet10t", ["act1", "layer1", "layer2", "layer3", "layer4"]),
        ("convnext_atto", ["stem", "stages.0", "stages.1", "stages.2", "norm_pre"]),
    ],
)
def test_stages_of_timm_are_seen(variant: str, expected: list[str]) -> None:
    pytest.importorskip("timm")
    network = unweighed(name=ModelName.TIMM, variant=variant)
    assert list(stages_of(network, 64).values()) == expected


@pytest.mark.parametrize(
    ("variant", "tokens"),
    [("vit_tiny_patch16_224", (5, 192)), ("mixer_s32_224", (4, 512))],
)
def test_networks_of_tokens_have_these_and_no_stage(variant: str, tokens: tuple[int, int]) -> None:
    pytest.importorskip("timm")
    side = 64 if "mixer" in variant else 32
    network = unweighed(name=ModelName.TIMM, variant=variant, arguments={"img_size": side})
    seen = shapes(network, side=side)
    assert seen["tokens"] == tokens
    assert seen["embedding"] == (tokens[1],)
    assert not {"stage1", "last"} & seen.keys()
    assert found(network, side=side).first("last|embedding") == "embedding"
    with pytest.raises(TrialFailed, match=r"has no feature 'last'; it has stem, .*tokens"):
        found(network, side=side).place("last")


def test_the_tokens_are_those_after_the_last_normalisation() -> None:
    pytest.importorskip("timm")
    vit: dict[str, Any] = {"variant": "vit_tiny_patch16_224", "arguments": {"img_size": 32}}
    network: Any = built(name=ModelName.TIMM, **vit).eval()
    logits, features = tap_of(network, "tokens", "embedding", side=32).during(lambda: network(images(2, 32)))
    torch.testing.assert_close(features["tokens"][:, 0], features["embedding"])
    torch.testing.assert_close(network.head(features["embedding"]), logits)


def test_transformers_models_that_give_no_tensors_inside_are_looked_through() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        num_labels=CLASSES,
    )
    network = transformers.ResNetForImageClassification(config)
    seen = shapes(with_logits(network, n_classes=CLASSES, which=None), side=64)
    assert [seen[f"stage{number}"] for number in (1, 2, 3, 4)] == [
        (8, 16, 16),
        (16, 8, 8),
        (24, 4, 4),
        (32, 2, 2),
    ]
    assert seen["stem"] == (8, 32, 32)


def plain_network() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.GELU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES)),
    )


def test_stages_of_a_users_layers_are_the_last_maps_of_their_sizes() -> None:
    places = found(plain_network()).places
    assert {name: place.point.path for name, place in places.items()} == {
        "stem": "1",
        "stage1": "3",
        "stage1.pre": "3",
        "stage2": "7",
        "stage2.pre": "7",
        "embedding": "10",
        "first_conv": "0",
        "last": "7",
    }


class Block(nn.Module):
    """Widens inside of itself, before it halves."""

    def __init__(self, channels: int, after: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(channels, 3 * channels, 1)
        self.down = nn.Conv2d(3 * channels, after, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.down(torch.relu(self.wide(x))))


def test_what_a_block_makes_inside_of_itself_is_no_stage() -> None:
    network = nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(3, 4, 3, padding=1),
            first=Block(4, 6),
            second=Block(6, 8),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            head=nn.Linear(8, CLASSES),
        )
    )
    assert stages_of(network) == {"stem": "stem", "stage1": "first", "stage2": "second"}


class Hourglass(nn.Module):
    """Maps shrink, and a decoder makes them as large as the images again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), Block(4, 6), Block(6, 8)
        self.third = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(8, 6, 3, padding=1))
        self.fourth = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(6, 4, 3, padding=1))
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.fourth(self.third(self.second(self.first(self.stem(x)))))
        logits: Tensor = self.head(maps.mean(dim=(-2, -1)))
        return logits


def test_what_a_decoder_enlarges_is_no_stage() -> None:
    places = found(Hourglass()).places
    assert {name: places[name].point.path for name in ("stem", "stage1", "stage2", "last")} == {
        **{"stem": "stem", "stage1": "first", "stage2": "second", "last": "second"},
    }
    assert "stage3" not in places


class WithKeys(nn.Module):
    """Beside its way lies a map as small as the last one, as in attention whose keys are pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), Block(4, 6), Block(6, 8)
        self.keys = nn.Conv2d(4, 4, 4, stride=4)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x * self.keys(x).mean(dim=(-2, -1), keepdim=True)
        logits: Tensor = self.head(self.second(self.first(x)).mean(dim=(-2, -1)))
        return logits


def test_a_small_map_before_larger_ones_is_no_stage() -> None:
    assert stages_of(WithKeys()) == {"stem": "stem", "stage1": "first", "stage2": "second"}


def test_maps_with_the_channels_last_are_none() -> None:
    pytest.importorskip("torchvision")
    seen = shapes(unweighed(name=ModelName.TORCHVISION, variant="swin_t"), side=64)
    assert seen["last"] == seen["stage1"] == (768, 2, 2)
    assert "stage2" not in seen


def test_layers_that_resize_normalise_or_choose_classes_change_no_stage() -> None:
    network = built(name=ModelName.RESNET8, width=4)
    own = shapes(network, side=16)
    shown = renormalised(
        resized(network, 16),
        Normalisation(mean=(0.1,) * 3, std=(0.5,) * 3),
        data_mean=[0] * 3,
        data_std=[1] * 3,
    )
    wrapped = aligned(shown, ClassRows(n_outputs=CLASSES, rows=(1, 0)))
    place = find_points(
        wrapped,
        n_classes=2,
        input_shape=(3, 40, 40),
        device=CPU,
        stated={"stage1": "layer3"},
        error=TrialFailed,
    ).places
    assert {name: p.shape[1:] for name, p in place.items() if name in ("stem", "embedding")} == {
        "stem": own["stem"],
        "embedding": own["embedding"],
    }
    assert place["stage1"].point.path == "network.network.network.layer3"
    assert "stage2" not in place


def test_the_resized_images_are_no_stage_of_a_users_layers() -> None:
    own = {name: place.point.path for name, place in found(plain_network(), side=16).places.items()}
    places = found(resized(plain_network(), 16), side=40).places
    assert {name: place.point.path for name, place in places.items()} == {
        name: f"network.{path}" for name, path in own.items()
    }


def test_parts_beside_a_network_are_no_stage_of_it() -> None:
    plain = plain_network()
    own = {name: place.point.path for name, place in found(plain, side=16).places.items()}
    given = tap_of(plain, "stage1", "embedding")
    beside = Extra(
        nn.Sequential(nn.Conv2d(6, 9, 3), nn.Flatten(), nn.Linear(9 * 14**2, 7)), ("stage1",), {"branch1": ""}
    )
    places = found(Extended(given, {"beside": beside}), side=16).places
    assert {name: place.point.path for name, place in places.items()} == {
        **{name: f"base.{path}" for name, path in own.items()},
        "branch1": "parts.beside",
    }
    assert places["branch1"].shape == (2, 7)


def test_the_embedding_is_what_a_cosine_head_is_given() -> None:
    assert shapes(built(name=ModelName.RESNET8, width=4, cosine_head=7))["embedding"] == (7,)


def test_a_distillation_tokens_heads_are_features() -> None:
    pytest.importorskip("timm")
    network = built(
        name=ModelName.TIMM, variant="deit_tiny_distilled_patch16_224", arguments={"img_size": 32}
    )
    seen = shapes(network, side=32)
    assert seen["class_logits"] == seen["distillation_logits"] == (CLASSES,)


def test_stages_that_the_file_names_are_all_that_there_are() -> None:
    network = built(name=ModelName.RESNET8, width=4)
    seen = shapes(network, stage1="layer2", stage2="layer3.0.bn2", stage2__pre="layer3.-1.bn1", stem="conv1")
    assert {name for name in seen if name.startswith("stage")} == {"stage1", "stage2", "stage2.pre"}
    assert seen["last"] == seen["stage2"] == (16, 8, 8)
    assert seen["stage1"] == (8, 16, 16)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"stage1": "layer9"}, r"features: \{stage1: layer9\}`: ResNet has no part 'layer9'; nearest: layer"),
        ({"stage1": "nosuch"}, r"ResNet has no part 'nosuch'; it has .*conv1, .*layer1, layer2, layer3"),
        ({"stage1": "flatten"}, r"features: \{stage1: flatten\}`: this part of ResNet gives no map BxCxHxW"),
        ({"embedding": "layer1"}, "gives no vector for each image"),
    ],
)
def test_what_the_file_names_must_be_there(stated: dict[str, Any], message: str) -> None:
    with pytest.raises(TrialFailed, match=message):
        found(built(name=ModelName.RESNET8, width=4), **stated)


def test_a_feature_that_is_not_there_is_told_with_those_that_are() -> None:
    network = built(name=ModelName.RESNET8, width=4)
    message = r"ResNet has no feature 'stage4'; it has stem, stage1, .*`features: \{stage4: PATH\}`"
    with pytest.raises(CacheError, match=message):
        tap_of(network, "stage1", "stage4", error=CacheError)
    with pytest.raises(TrialFailed, match="Mlp has no feature 'stage1'; it has embedding;"):
        tap_of(built(name=ModelName.MLP), "stage1")


def test_where_a_stage_has_no_map_before_its_activation_the_one_behind_it_is_named() -> None:
    network = built(name=ModelName.SHUFFLENETV2, width=9)
    tap_of(network, "stage1", "stage3.pre", side=32)
    message = r"has no feature 'stage1.pre'; .*, or take the map after the activation \(`teacher_maps: post`"
    with pytest.raises(CacheError, match=message):
        tap_of(network, "stage1.pre", side=32, error=CacheError)
    with pytest.raises(CacheError, match=r"no feature 'stage7.pre'; .*PATH\}`, or choose another network"):
        tap_of(network, "stage7.pre", side=32, error=CacheError)


def test_names_of_parts_leave_a_network_what_it_is() -> None:
    plain = ModelConfig(name=ModelName.RESNET8)
    named = ModelConfig.from_plain(
        {"name": "resnet8", "features": {"stage1": "layer2", "stage2.pre": "layer3"}}
    )
    assert "features" not in plain.plain()
    assert named.plain()["features"] == {"stage1": "layer2", "stage2.pre": "layer3"}
    assert named.unnamed == plain
    wrong: dict[str, Any] = {"name": "resnet8", "features": {"stage0": "layer2"}}
    with pytest.raises(ValueError, match="pattern"):
        ModelConfig.from_plain(wrong)
