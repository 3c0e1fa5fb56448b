"""torchvision's classifiers by their builders' names, with fresh weights."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Final

import torch
import torchvision
from torch import nn

from trainables.config.models import ModelConfig
from trainables.errors import ConfigError

_OURS: Final = frozenset({"name", "num_classes", "weights", "weights_backbone"})


def torchvision_network(config: ModelConfig, n_classes: int, in_channels: int) -> nn.Module:
    """The network `variant` with `arguments`, not pretrained; grey images get a stem of one channel.

    Raises:
        ConfigError: torchvision has no such classifier, does not take these arguments, or cannot take images
            of so many channels.
    """
    variant = config.variant or ""
    known = torchvision.models.list_models(module=torchvision.models)
    if variant not in known:
        close = get_close_matches(variant, known, n=3, cutoff=0.4)
        raise ConfigError(
            f"torchvision has no classifier {variant!r}; nearest: {', '.join(close) or 'none'}; "
            f"known: {', '.join(known)}"
        )
    ours = sorted(_OURS & config.arguments.keys())
    if ours:
        raise ConfigError(
            f"`arguments` of torchvision's {variant} may not hold {', '.join(ours)}: the data set gives the "
            "number of classes, and weights come from a checkpoint"
        )
    try:
        network: nn.Module = torchvision.models.get_model(
            variant, weights=None, num_classes=n_classes, **config.arguments
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"torchvision's {variant} does not take `arguments` {config.arguments}: {error}"
        ) from error
    if in_channels != 3:
        _replace_stem(network, in_channels, variant)
    return network


def _replace_stem(network: nn.Module, in_channels: int, variant: str) -> None:
    """A first convolution for grey images: its weights are summed over the three colours.

    So the network starts as the one for colour does when it is shown the grey image in all three channels.
    """
    stem = next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)
    if stem is None or stem.in_channels != 3 or stem.groups != 1 or in_channels != 1:
        raise ConfigError(
            f"torchvision's {variant} cannot take images of {in_channels} channels, only of 3 or 1; use a "
            "network by name, or a `factory` of your own"
        )
    with torch.no_grad():
        stem.weight = nn.Parameter(stem.weight.sum(dim=1, keepdim=True))
    stem.in_channels = 1
