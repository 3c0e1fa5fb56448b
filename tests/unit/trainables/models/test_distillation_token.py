"""Students with a distillation token: their two heads are found, and their answer is the mean of both."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor, nn

from trainables.config import ModelConfig, ModelName
from trainables.models import build_model, check_logits
from trainables.models.distillation_token import distillation_heads

# B = samples, C = classes
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
N_CLASSES = 5


def of_timm(variant: str = "deit_tiny_distilled_patch16_224", **more: int) -> ModelConfig:
    return ModelConfig(name=ModelName.TIMM, variant=variant, arguments=SMALL, **more)


def of_transformers(folder: Path, *, with_teacher: bool = True) -> ModelConfig:
    kind = "DeiTForImageClassificationWithTeacher" if with_teacher else "DeiTForImageClassification"
    transformers.DeiTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        architectures=[kind],
    ).save_pretrained(folder)
    return ModelConfig(name=ModelName.TRANSFORMERS, variant=str(folder))


def built(config: ModelConfig) -> nn.Module:
    torch.manual_seed(0)
    return build_model(config, n_classes=N_CLASSES, in_channels=3)


def answers(model: nn.Module, images_BCHW: Tensor) -> tuple[Tensor, list[Tensor]]:
    """What a network returns, and what its two heads give in that pass."""
    heads = distillation_heads(model)
    assert heads is not None
    given: list[Tensor] = []
    for path in heads:
        model.get_submodule(path).register_forward_hook(lambda _, _inputs, output: given.append(output))
    return model(images_BCHW), given


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("library", ["timm", "transformers", "resized"])
def test_the_answer_is_the_mean_of_both_heads_in_both_modes(
    library: str, training: bool, tmp_path: Path
) -> None:
    configs = {"timm": of_timm(), "resized": of_timm(resolution=32)}
    config = configs.get(library) or of_transformers(tmp_path)
    side = 48 if library == "resized" else 32
    model = built(config).train(training)
    check_logits(model, torch.zeros(2, 3, side, side), n_classes=N_CLASSES)
    logits_BC, (class_BC, distilled_BC) = answers(model, torch.rand(3, 3, side, side))
    assert isinstance(logits_BC, Tensor)
    assert class_BC.shape == distilled_BC.shape == (3, N_CLASSES)
    assert not torch.equal(class_BC, distilled_BC)
    torch.testing.assert_close(logits_BC, (class_BC + distilled_BC) / 2)


def test_the_class_head_is_named_first(tmp_path: Path) -> None:
    assert distillation_heads(built(of_timm())) == ("head", "head_dist")
    assert distillation_heads(built(of_timm(resolution=32))) == ("network.head", "network.head_dist")
    found = distillation_heads(built(of_transformers(tmp_path)))
    assert found == ("cls_classifier", "distillation_classifier")
    levit = transformers.LevitForImageClassificationWithTeacher(
        transformers.LevitConfig(
            image_size=32, hidden_sizes=[16, 16, 16], num_attention_heads=[1, 1, 1], depths=[1, 1, 1]
        )
    )
    assert distillation_heads(levit) == ("classifier", "classifier_distill")


@pytest.mark.parametrize("library", ["transformers", "timm", "ours"])
def test_a_network_without_a_distillation_token_has_no_such_heads(library: str, tmp_path: Path) -> None:
    configs = {
        "transformers": of_transformers(tmp_path, with_teacher=False),
        "timm": of_timm("deit_tiny_patch16_224"),
        "ours": ModelConfig(name=ModelName.RESNET8, width=4),
    }
    assert distillation_heads(built(configs[library])) is None
