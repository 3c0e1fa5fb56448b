"""timm's classifiers by their names, with fresh weights."""

from __future__ import annotations

from typing import Final

from torch import nn

from trainables.config.models import ModelConfig
from trainables.errors import ConfigError
from trainables.foreign_files import foreign_file
from trainables.models.foreign.extras import extra, nearest, refuse_ours

_OURS: Final = frozenset(
    {
        *("model_name", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path"),
        *("num_classes", "in_chans", "cache_dir", "scriptable", "features_only"),
    }
)


def timm_network(config: ModelConfig, n_classes: int, in_channels: int) -> nn.Module:
    """The network `variant` with `arguments`, not pretrained, for images of so many channels.

    Raises:
        ConfigError: timm is not installed, has no such network, or does not take these arguments.
    """
    timm = extra("timm")
    variant = str(config.variant)
    require_known(variant)
    refuse_ours(config.arguments, _OURS, f"timm's {variant}")
    with foreign_file(
        lambda why: ConfigError(
            f"timm's {variant} cannot be built with `arguments` {config.arguments}: {why}"
        )
    ):
        network: nn.Module = timm.create_model(
            variant, pretrained=False, num_classes=n_classes, in_chans=in_channels, **config.arguments
        )
    return network


def require_known(variant: str) -> None:
    """Refuse names that timm does not have; one may name weights behind a dot, as resnet18.a1_in1k.

    Raises:
        ConfigError: it has not; it names the nearest.
    """
    timm = extra("timm")
    architecture, _, tag = variant.partition(".")
    known = timm.list_models()
    if architecture not in known:
        raise ConfigError(
            f"timm has no network {architecture!r}; nearest: {nearest(architecture, known)}; "
            "timm.list_models() gives all names"
        )
    if tag and variant not in timm.list_pretrained(f"{architecture}.*"):
        tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{architecture}.*")]
        raise ConfigError(f"timm's {architecture} has no weights {tag!r}; it has {', '.join(tags) or 'none'}")
