"""torchvision's classifiers by their builders' names, with fresh weights."""

from __future__ import annotations

from typing import Final

import torchvision
from torch import nn

from trainables.config.models import ModelConfig
from trainables.errors import ConfigError
from trainables.models.foreign.extras import nearest, refuse_ours
from trainables.models.foreign.stems import replace_stem

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
        raise ConfigError(
            f"torchvision has no classifier {variant!r}; nearest: {nearest(variant, known)}; "
            f"known: {', '.join(known)}"
        )
    refuse_ours(config.arguments, _OURS, f"torchvision's {variant}")
    try:
        network: nn.Module = torchvision.models.get_model(
            variant, weights=None, num_classes=n_classes, **config.arguments
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"torchvision's {variant} does not take `arguments` {config.arguments}: {error}"
        ) from error
    replace_stem(network, in_channels, f"torchvision's {variant}")
    return network
