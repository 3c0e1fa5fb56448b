"""The weights that a library publishes, from caches made here: nothing is fetched in a test."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
import transformers
from torch import nn

from tests.unit.trainables.models.hub_caches import in_hub_cache
from trainables.checkpoint_header import stated_classes, stated_normalisation
from trainables.config import ModelConfig, ModelName, Normalisation, StartWeights
from trainables.errors import CheckpointError, ConfigError
from trainables.local_files import file_sha256
from trainables.models import build_model
from trainables.models.foreign.published import published_weights
from trainables.models.foreign.start import start_from
from trainables.models.weights import load_weights, weights_digest

NOWHERE = "http://127.0.0.1:9"


def of(name: ModelName, variant: Any, **arguments: Any) -> ModelConfig:
    return ModelConfig(name=name, variant=str(variant), arguments=arguments)


RESNET = of(ModelName.TORCHVISION, "squeezenet1_1")
SMALL = of(ModelName.TIMM, "test_resnet")


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of both hubs, of which neither can be reached."""
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", NOWHERE)
    return tmp_path


def in_torch_cache(caches: Path, network: nn.Module, name: str) -> None:
    (caches / "torch" / "checkpoints").mkdir(parents=True)
    torch.save(network.state_dict(), caches / "torch" / "checkpoints" / name)


def published_test_resnet(caches: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What timm publishes of its test network, as far as this machine's cache goes."""
    torch.manual_seed(1)
    network = timm.create_model("test_resnet")
    torch.save(network.state_dict(), caches / "weights.bin")
    content = {"pytorch_model.bin": (caches / "weights.bin").read_bytes()}
    in_hub_cache(
        caches / "hub", monkeypatch, "timm/test_resnet.r160_in1k", content, without=("model.safetensors",)
    )
    return network


def built(config: ModelConfig, n_classes: int = 1000, in_channels: int = 3) -> nn.Module:
    return build_model(config, n_classes=n_classes, in_channels=in_channels)


def test_torchvisions_weights_come_from_its_cache_into_a_file_of_the_run(caches: Path) -> None:
    there = torchvision.models.squeezenet1_1()
    in_torch_cache(caches, there, "squeezenet1_1-b8a52dc0.pth")
    file = published_weights(RESNET, "IMAGENET1K_V1", caches / "run")
    assert file == caches / "run" / "squeezenet1_1-b8a52dc0.pth"
    network = built(RESNET)
    load_weights(network, file)
    assert weights_digest(network) == weights_digest(there)
    shutil.rmtree(caches / "torch")
    assert published_weights(RESNET, "IMAGENET1K_V1", caches / "run") == file


def test_timms_weights_come_from_the_cache_and_say_how_images_were_normalised(
    caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = published_test_resnet(caches, monkeypatch)
    file = published_weights(SMALL, None, caches / "run")
    network = built(SMALL)
    load_weights(network, file)
    assert weights_digest(network) == weights_digest(there)
    assert stated_normalisation(file) == Normalisation(
        mean=there.pretrained_cfg["mean"],
        std=there.pretrained_cfg["std"],
    )
    again = published_weights(SMALL, "r160_in1k", caches / "elsewhere")
    assert file_sha256(again) == file_sha256(file)


def test_a_student_starts_from_published_weights_with_a_fresh_head(
    caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published_test_resnet(caches, monkeypatch)
    file = published_weights(SMALL, None, caches)
    student = built(SMALL, n_classes=4, in_channels=1)
    start = StartWeights(path=str(file), sha256=file_sha256(file))
    assert start_from(student, start, classes=tuple("abcd")) == ("fc.weight", "fc.bias")


def test_a_teacher_with_published_weights_of_other_classes_is_refused_with_what_mends_it(
    caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published_test_resnet(caches, monkeypatch)
    with pytest.raises(CheckpointError, match=r"is of 1000 classes, the data set has 4\. .* `classes: \["):
        load_weights(built(SMALL, n_classes=4), published_weights(SMALL, None, caches))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A teacher of transformers with all that it says of itself."""
    settings = transformers.ResNetConfig(
        embedding_size=4, hidden_sizes=[4], depths=[1], layer_type="basic", id2label=dict(enumerate("abc"))
    )
    transformers.ResNetForImageClassification(settings).save_pretrained(tmp_path / "mine")
    transformers.ViTImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]).save_pretrained(
        tmp_path / "mine"
    )
    return tmp_path / "mine"


def test_a_folder_of_transformers_is_its_own_publisher_and_says_classes_and_normalisation(
    folder: Path,
) -> None:
    config = of(ModelName.TRANSFORMERS, folder)
    file = published_weights(config, None, folder.parent / "run")
    assert file.is_relative_to(folder.parent / "run")
    load_weights(built(config, n_classes=3), file)
    assert stated_classes(file) == ("a", "b", "c")
    assert stated_normalisation(file) == Normalisation(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))


def test_a_preprocessor_that_was_changed_is_brought_with_the_weights(folder: Path, tmp_path: Path) -> None:
    for mean in (0.1, 0.2):
        transformers.ViTImageProcessor(image_mean=[mean] * 3).save_pretrained(folder)
        file = published_weights(of(ModelName.TRANSFORMERS, str(folder)), None, tmp_path / "out")
        stated = stated_normalisation(file)
        assert stated is not None
        assert stated.mean == (mean,) * 3


def test_a_name_on_the_hub_is_copied_with_what_stands_beside_it(
    caches: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    in_hub_cache(caches / "hub", monkeypatch, "someone/mine", files)
    file = published_weights(of(ModelName.TRANSFORMERS, "someone/mine"), None, caches / "run")
    assert file.is_relative_to(caches / "run")
    assert stated_classes(file) == ("a", "b", "c")


@pytest.mark.parametrize(
    ("said", "normalisation"),
    [
        ('{"do_normalize": false}', Normalisation(mean=(0, 0, 0), std=(1, 1, 1))),
        ('{"rescale_factor": 1.0, "image_mean": [0.5], "image_std": [0.5]}', None),
        ('{"rescale_offset": true, "image_mean": [0.5], "image_std": [0.5]}', None),
        ('{"image_mean": "half", "image_std": [0.5]}', None),
        ('{"rescale_factor": "x"}', None),
        ("[", None),
    ],
)
def test_what_a_preprocessor_says_in_another_way_is_not_taken(
    folder: Path, said: str, normalisation: Normalisation | None
) -> None:
    (folder / "preprocessor_config.json").write_text(said)
    assert stated_normalisation(folder / "model.safetensors") == normalisation


@pytest.mark.parametrize(
    ("config", "tag", "message"),
    [
        (RESNET, "IMAGENET1K_V7", "no weights 'IMAGENET1K_V7' of squeezenet1_1; it has IMAGENET1K_V1"),
        (RESNET, None, r"weights of squeezenet1_1 .* are not in the cache .* cannot be reached"),
        (SMALL, None, rf"timm/test_resnet.r160_in1k .* is not in the cache .* {NOWHERE} cannot be reached"),
        (SMALL, "nobody", "test_resnet has no weights 'nobody'; it has r160_in1k"),
        (of(ModelName.TIMM, "convit_smal"), None, "no network 'convit_smal'; nearest: convit_small"),
        (of(ModelName.TIMM, "test_convnext3x"), None, "no network 'test_convnext3x'"),
        (of(ModelName.TRANSFORMERS, "someone/mine"), None, "is not in the cache of the hub"),
        (
            of(ModelName.TRANSFORMERS, "someone/mine"),
            "v2",
            "one set of weights of someone/mine, and none 'v2'",
        ),
    ],
)
def test_what_cannot_be_had_is_one_line(
    caches: Path, monkeypatch: pytest.MonkeyPatch, config: ModelConfig, tag: str | None, message: str
) -> None:
    monkeypatch.setattr(
        "trainables.models.foreign.published.why_unreachable", lambda _: "no network in a test"
    )
    with pytest.raises(ConfigError, match=message) as raised:
        published_weights(config, tag, caches / "run")
    assert "\n" not in str(raised.value)


def test_weights_in_another_form_than_safetensors_say_how_to_save_them(folder: Path) -> None:
    config = of(ModelName.TRANSFORMERS, folder)
    weights = folder / "model.safetensors"
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"it has pytorch_model\.bin, a pickle; save it with"):
        published_weights(config, None, folder)
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"save_pretrained\(max_shard_size='1TB'\)"):
        published_weights(config, None, folder)


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    """A network whose weights have other names on disk than in memory."""
    settings = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=8,
        image_size=8,
        patch_size=4,
        id2label=dict(enumerate("abc")),
    )
    torch.manual_seed(3)
    transformers.ViTForImageClassification(settings).save_pretrained(tmp_path / "vit")
    return tmp_path / "vit"


def test_weights_of_other_names_on_disk_are_those_that_the_library_reads(vit: Path) -> None:
    config = of(ModelName.TRANSFORMERS, vit)
    file = published_weights(config, None, vit.parent / "run")
    network = built(config, n_classes=3).eval()
    load_weights(network, file)
    expected = transformers.AutoModelForImageClassification.from_pretrained(vit).eval()
    images = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(network(images), expected(images).logits)
    again = published_weights(config, None, vit.parent / "elsewhere")
    assert file_sha256(again) == file_sha256(file)


def test_a_head_that_a_folder_lacks_is_not_made_up(vit: Path) -> None:
    backbone = transformers.ViTModel.from_pretrained(vit, add_pooling_layer=False)
    backbone.save_pretrained(vit)
    config = of(ModelName.TRANSFORMERS, vit)
    file = published_weights(config, None, vit.parent / "run")
    with pytest.raises(CheckpointError, match=r"2 missing: classifier\.weight, classifier\.bias"):
        load_weights(built(config, n_classes=3), file)
    start = StartWeights(path=str(file), sha256=file_sha256(file))
    fresh = start_from(built(config, n_classes=3), start, classes=tuple("abc"))
    assert fresh == ("classifier.weight", "classifier.bias")


def test_a_damaged_folder_is_one_line(vit: Path) -> None:
    (vit / "config.json").write_text('{"model_type": "vit", "hidden_size": 12, "num_attention_heads": 2}')
    with pytest.raises(CheckpointError, match=r"transformers cannot read the weights in .*vit") as raised:
        published_weights(of(ModelName.TRANSFORMERS, vit), None, vit.parent / "run")
    assert "\n" not in str(raised.value)
