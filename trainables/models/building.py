"""From a configuration to a network with fresh weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor, nn

from trainables.config.models import ModelConfig, ModelName
from trainables.errors import ConfigError
from trainables.factories import accepted_keyword, call_factory, in_one_line
from trainables.models.bottleneck_resnet import bottleneck_resnet
from trainables.models.cosine import with_cosine_head
from trainables.models.foreign.copies import copied
from trainables.models.foreign.from_timm import timm_network
from trainables.models.foreign.from_transformers import transformers_network
from trainables.models.foreign.image_sizes import size_argument
from trainables.models.foreign.logits import with_logits
from trainables.models.mobilenet_v2 import mobilenet_v2
from trainables.models.resized import resized
from trainables.models.resnet import resnet, resnet_x4
from trainables.models.shufflenet_v1 import shufflenet_v1
from trainables.models.shufflenet_v2 import shufflenet_v2
from trainables.models.small import convnet, mlp
from trainables.models.vgg import vgg
from trainables.models.wide_resnet import wide_resnet

ModelBuilder = Callable[[int, int, int | None], nn.Module]
"""Called with the number of classes, the channels of an image, and the width of the first stage or None."""

_CLASSES: Final = ("n_classes", "num_classes")
"""What a factory may call the number of classes."""

MODELS: Final[Mapping[ModelName, ModelBuilder]] = MappingProxyType(
    {
        ModelName.MLP: mlp,
        ModelName.CONVNET: convnet,
        ModelName.RESNET8: resnet(8),
        ModelName.RESNET14: resnet(14),
        ModelName.RESNET20: resnet(20),
        ModelName.RESNET32: resnet(32),
        ModelName.RESNET56: resnet(56),
        ModelName.RESNET110: resnet(110),
        ModelName.RESNET8X4: resnet_x4(8),
        ModelName.RESNET32X4: resnet_x4(32),
        ModelName.WRN_16_1: wide_resnet(16, 1),
        ModelName.WRN_16_2: wide_resnet(16, 2),
        ModelName.WRN_40_1: wide_resnet(40, 1),
        ModelName.WRN_40_2: wide_resnet(40, 2),
        ModelName.VGG8: vgg(1),
        ModelName.VGG13: vgg(2),
        ModelName.RESNET50: bottleneck_resnet(3, 4, 6, 3),
        ModelName.MOBILENETV2: mobilenet_v2,
        ModelName.SHUFFLENETV1: shufflenet_v1,
        ModelName.SHUFFLENETV2: shufflenet_v2,
    }
)


def build_model(config: ModelConfig, *, n_classes: int, in_channels: int) -> nn.Module:
    """A network from images BxCxHxW to logits BxC, in training mode, on the CPU, with fresh weights.

    With a resolution, its first layer resizes the images. The weights come from torch's global generator:
    seed it, or fork it, before the call. A factory is told the number of classes where it asks for it; the
    channels of its images are for its `arguments`. A network that returns no tensor is made to return one.

    Raises:
        ConfigError: a library's variant or the factory cannot be found, or does not give a network; or
            it has no linear classifier that a cosine head could replace.
    """
    network = _network(config, n_classes, in_channels)
    if config.cosine_head is not None:
        network = with_cosine_head(network, config.cosine_head, n_classes)
    return network if config.resolution is None else resized(network, config.resolution)


def _network(config: ModelConfig, n_classes: int, in_channels: int) -> nn.Module:
    if config.factory is not None:
        keyword = accepted_keyword(config.factory, _CLASSES, config.arguments)
        given = {} if keyword is None else {keyword: n_classes}
        network = call_factory(config.factory, given, config.arguments)
        if not isinstance(network, nn.Module):
            raise ConfigError(
                f"model factory {config.factory!r} returned a {type(network).__name__}; "
                "return a torch.nn.Module"
            )
        return with_logits(network, n_classes=n_classes, which=config.output)
    if config.name is None or config.is_of_library:
        network = _of_library(config, n_classes, in_channels)
        return with_logits(network, n_classes=n_classes, which=None)
    return MODELS[config.name](n_classes, in_channels, config.width)


def _of_library(config: ModelConfig, n_classes: int, in_channels: int) -> nn.Module:
    match config.name:
        case ModelName.TIMM:
            return timm_network(config, n_classes, in_channels)
        case ModelName.TRANSFORMERS:
            return transformers_network(config, n_classes, in_channels)
        case _:
            # Late: torchvision takes as long to import as torch, in every worker, and few runs need it.
            from trainables.models.from_torchvision import torchvision_network

            return torchvision_network(config, n_classes, in_channels)


def _to_mend(model: nn.Module) -> str:
    """What helps where a network cannot take images of this size."""
    name = size_argument(model)
    fits = "" if name is None else f"`arguments: {{{name}: SIDE}}` builds it for images of that side, "
    return f"{fits}`resolution: SIDE` resizes the images for it; or choose another network or `image_size`"


def check_logits(model: nn.Module, images_BCHW: Tensor, *, n_classes: int, name: str | None = None) -> None:
    """Runs a copy of the model on a small batch, in evaluation and in training mode.

    The model, its statistics and the random state stay as they are. Give the images on the model's device,
    and two or more of them, since batch norm in training mode needs more than one value. Errors call the
    network by its name, by default that of its class.

    Raises:
        ConfigError: the model fails on the batch, or its output is not a tensor BxC of floating point.
    """
    network = name or type(model).__name__
    expected = (len(images_BCHW), n_classes)
    devices = [images_BCHW.device] if images_BCHW.is_cuda else []
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        for mode, training in (("evaluation", False), ("training", True)):
            try:
                output = copied(model).train(training)(images_BCHW)
            except ConfigError as error:
                raise ConfigError(f"{network}: {error}") from error
            except Exception as error:  # a user's network may raise anything
                raise ConfigError(
                    f"{network} fails in {mode} mode on a batch of shape {tuple(images_BCHW.shape)}: "
                    f"{in_one_line(error)}; {_to_mend(model)}"
                ) from error
            if not isinstance(output, Tensor):
                found = f"a {type(output).__name__}"
            elif tuple(output.shape) != expected or not output.is_floating_point():
                found = f"{output.dtype} of shape {tuple(output.shape)}"
            else:
                continue
            raise ConfigError(
                f"{network} returns {found} in {mode} mode; it must return logits, one tensor of floating "
                f"point and shape {expected}, a number for each class of the data set"
            )
