"""Networks of timm and transformers by their names: built for the data, or refused in one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from tests.unit.trainables.models.hub_caches import in_hub_cache
from trainables.config import ModelConfig, ModelName
from trainables.errors import ConfigError
from trainables.models import build_model, check_logits
from trainables.models.foreign.image_sizes import last_map_side, side_to_show
from trainables.models.weights import load_weights, save_weights

CLASSES = {0: "ant", 1: "bee", 2: "cat", 3: "dog"}


def of_timm(variant: str, **arguments: Any) -> ModelConfig:
    return ModelConfig(name=ModelName.TIMM, variant=variant, arguments=arguments)


def of_transformers(folder: Path | str, **arguments: Any) -> ModelConfig:
    return ModelConfig(name=ModelName.TRANSFORMERS, variant=str(folder), arguments=arguments)


def built(config: ModelConfig, *, in_channels: int = 3, n_classes: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return build_model(config, n_classes=n_classes, in_channels=in_channels)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks") / "resnet"
    transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", id2label=CLASSES
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks") / "vit"
    transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=16,
        patch_size=4,
        id2label=CLASSES,
    ).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("in_channels", [1, 3])
def test_a_timm_network_has_classes_and_channels_of_the_data(in_channels: int) -> None:
    network = built(of_timm("test_resnet", drop_rate=0.1), in_channels=in_channels, n_classes=7)
    check_logits(network, torch.zeros(2, in_channels, 32, 32), n_classes=7)


@pytest.mark.parametrize("in_channels", [1, 3])
def test_a_network_of_transformers_gives_logits_of_the_data(resnet: Path, in_channels: int) -> None:
    for n_classes in (4, 7):
        network = built(of_transformers(resnet), in_channels=in_channels, n_classes=n_classes)
        check_logits(network, torch.zeros(2, in_channels, 32, 32), n_classes=n_classes)


def test_the_same_seed_gives_the_same_network_of_transformers(vit: Path) -> None:
    one, other = built(of_transformers(vit)), built(of_transformers(vit))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_half_precision_configuration_is_built_in_fp32(vit: Path, tmp_path: Path) -> None:
    settings = json.loads((vit / "config.json").read_text())
    names = {"dtype": "float16", "torch_dtype": "float16"}  # of today, and of earlier versions
    (tmp_path / "config.json").write_text(json.dumps({**settings, **names}))
    assert {p.dtype for p in built(of_transformers(tmp_path)).parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("config", "advice"),
    [("timm", r"arguments: \{img_size: SIDE\}`"), ("transformers", r"arguments: \{image_size: SIDE\}`")],
)
def test_a_fixed_image_size_is_named_with_what_to_write(vit: Path, config: str, advice: str) -> None:
    network = built(of_timm("test_vit") if config == "timm" else of_transformers(vit))
    with pytest.raises(ConfigError, match=f"{advice} .* `resolution: SIDE`"):
        check_logits(network, torch.zeros(2, 3, 8, 8), n_classes=4)


def test_arguments_and_resolution_fit_a_fixed_image_size(vit: Path) -> None:
    for config in (
        *(of_timm("test_vit", img_size=32), of_transformers(vit, image_size=32)),
        of_transformers(vit).with_overrides(resolution=16),
    ):
        check_logits(built(config), torch.zeros(2, 3, 32, 32), n_classes=4)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (of_timm("mobilenetv4_conv_smal"), r"no network .*; nearest: mobilenetv4_conv_small, "),
        (of_timm("resnet18.nobody"), r"resnet18 has no weights 'nobody'; it has .*a1_in1k"),
        (of_timm("hf-hub:someone/resnet"), r"timm has no network 'hf-hub:someone/resnet'"),
        (of_timm("test_resnet", bogus=1), r"test_resnet cannot be built with `arguments` .*'bogus'"),
        (of_timm("test_resnet", pretrained=True), r"may not hold pretrained: .* come from a checkpoint"),
    ],
)
def test_what_timm_does_not_have_is_named(config: ModelConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        built(config)


def test_arguments_that_a_configuration_does_not_have_name_the_nearest(vit: Path) -> None:
    with pytest.raises(ConfigError, match=r"\(vit\) has no 'img_size', .*; nearest: image_size"):
        built(of_transformers(vit, img_size=32))


def test_a_missing_folder_names_those_that_are_there(vit: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config\.json in .*/vitt; .*folders there: vit$"):
        built(of_transformers(vit.with_name("vitt")))


def test_a_configuration_of_no_image_classifier_is_refused(tmp_path: Path) -> None:
    transformers.BertConfig(hidden_size=8).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="is a bert, which transformers has no image classifier of"):
        built(of_transformers(tmp_path))


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"model_type": "nonsense"}', '{"auto_map": {"AutoConfig": "x.Y"}}']
)
def test_a_damaged_or_foreign_configuration_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError) as raised:
        built(of_transformers(tmp_path))
    assert "\n" not in str(raised.value)


def test_code_beside_a_configuration_is_never_run(vit: Path, tmp_path: Path) -> None:
    content = (vit / "config.json").read_text().replace("{", '{"auto_map": {"AutoConfig": "evil.Evil"},', 1)
    (tmp_path / "config.json").write_text(content)
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert type(built(of_transformers(tmp_path))).__name__ == "ViTForImageClassification"
    assert not (tmp_path / "ran").exists()


def test_a_name_on_the_hub_is_built_from_the_cache(
    resnet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_hub_cache(
        tmp_path, monkeypatch, "someone/resnet", {"config.json": (resnet / "config.json").read_bytes()}
    )
    check_logits(built(of_transformers("someone/resnet")), torch.zeros(2, 3, 32, 32), n_classes=4)


@pytest.mark.parametrize("offline", [True, False])
def test_a_name_that_cannot_be_fetched_is_one_line_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    in_hub_cache(tmp_path, monkeypatch, "someone/resnet", {})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    why = "HF_HUB_OFFLINE is set" if offline else r"http://127\.0\.0\.1:9 cannot be reached"
    with pytest.raises(ConfigError, match=rf"someone/resnet \(config\.json\) is not in the cache .* {why}"):
        built(of_transformers("someone/resnet"))


@pytest.mark.parametrize("name", ["timm", "transformers"])
def test_a_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"pip install 'stillhouse\[{name}\]'"):
        built(ModelConfig.from_plain({"name": name, "variant": "resnet18"}))


def test_how_little_a_network_leaves_of_small_images_is_known() -> None:
    network = built(ModelConfig(name=ModelName.TORCHVISION, variant="resnet18"))
    sides = [last_map_side(network, torch.zeros(2, 3, side, side)) for side in (8, 32, 128)]
    assert sides == [1, 1, 4]
    shown = [side_to_show(network, torch.zeros(2, 3, side, side)) for side in (8, 32, 128)]
    assert shown == [64, 64, None]


@pytest.mark.parametrize("resolution", [None, 16])
def test_weights_for_colour_fit_a_network_of_grey_images(tmp_path: Path, resolution: int | None) -> None:
    config = of_timm("test_resnet").with_overrides(resolution=resolution)
    colour, grey = built(config), built(config, in_channels=1)
    save_weights(colour, tmp_path / "colour.safetensors", {})
    load_weights(grey, tmp_path / "colour.safetensors")
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(grey.eval()(images), colour.eval()(images.expand(-1, 3, -1, -1)))
