"""Image classifiers of transformers, by a folder or a name on the hub, with fresh weights.

Only the configuration is read here, never code that lies beside it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from trainables.checkpoint_header import CONFIG
from trainables.config.models import ModelConfig
from trainables.errors import ConfigError
from trainables.foreign_files import foreign_file
from trainables.models.foreign.extras import extra, nearest, refuse_ours, shown
from trainables.models.foreign.hub import hub_file

_OURS: Final = frozenset(
    {
        *("num_labels", "num_channels", "id2label", "label2id", "problem_type", "torch_dtype", "dtype"),
        *("trust_remote_code", "return_dict", "use_return_dict"),
    }
)


def transformers_network(config: ModelConfig, n_classes: int, in_channels: int) -> nn.Module:
    """The network of `variant` with `arguments` in its configuration, with fresh weights, in fp32.

    Raises:
        ConfigError: transformers is not installed; there is no such configuration, or it is of no image
            classifier, or needs code of its own; or it has no such values, or cannot take such images.
    """
    transformers, variant = extra("transformers"), str(config.variant)
    refuse_ours(config.arguments, _OURS, f"{variant} of transformers")
    with silent_transformers():
        settings = _settings(config, config_folder(variant))
        _refuse_unknown(settings, config)
        _set_channels(settings, in_channels, variant)
        if len(getattr(settings, "id2label", None) or {}) != n_classes:
            settings.num_labels = n_classes
        for name, value in config.arguments.items():
            setattr(settings, name, value)
        classifiers = transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
        if type(settings) not in classifiers:
            kinds = [each.model_type for each in classifiers]
            raise ConfigError(
                f"{variant} is a {settings.model_type}, which transformers has no image classifier of; it "
                f"has them of {shown(kinds)}"
            )
        with foreign_file(
            lambda why: ConfigError(
                f"{variant} of transformers cannot be built with `arguments` {config.arguments}: {why}"
            )
        ):
            network: nn.Module = transformers.AutoModelForImageClassification.from_config(
                settings, trust_remote_code=False
            )
    return network.to(torch.float32).train()


def config_folder(variant: str) -> Path:
    """Where the configuration of a folder, or of a name on the hub, lies on this machine.

    Raises:
        ConfigError: there is none, and it cannot be fetched.
    """
    folder = Path(variant)
    if not folder.is_absolute():
        found = hub_file(variant, CONFIG)
        if found is None:
            raise ConfigError(f"{variant} on the hub has no {CONFIG}; name a model of transformers")
        return found.parent
    if not (folder / CONFIG).is_file():
        near = [path.parent.name for path in folder.parent.glob(f"*/{CONFIG}")]
        raise ConfigError(
            f"no {CONFIG} in {folder}; `variant` may be a folder that save_pretrained wrote, relative to the "
            f"experiment's file, or a name on the hub; folders there: {nearest(folder.name, near)}"
        )
    return folder


def _settings(config: ModelConfig, folder: Path) -> Any:
    """The configuration object of a folder.

    Raises:
        ConfigError: it cannot be read, or needs code of its own.
    """
    transformers, variant = extra("transformers"), config.variant
    with foreign_file(
        lambda why: ConfigError(f"{folder / CONFIG} is no configuration of transformers: {why}")
    ):
        content = json.loads((folder / CONFIG).read_bytes())
        if "auto_map" in content and "model_type" not in content:
            raise ConfigError(
                f"{variant} of transformers needs code of its own (auto_map), which is never run; write a "
                "`factory` that builds the network"
            )
        return transformers.AutoConfig.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )


def _refuse_unknown(settings: Any, config: ModelConfig) -> None:
    known = set(settings.to_dict())
    for name in config.arguments:
        if name not in known:
            close = nearest(name, known)
            raise ConfigError(
                f"the configuration of {config.variant} ({settings.model_type}) has no {name!r}, which "
                f"`arguments` name; nearest: {close}"
            )


def _set_channels(settings: Any, in_channels: int, variant: str) -> None:
    if hasattr(settings, "num_channels"):
        settings.num_channels = in_channels
    elif in_channels != 3:
        raise ConfigError(
            f"{variant} of transformers ({settings.model_type}) does not say how many channels its images "
            f"have, and those of the data set have {in_channels}; use another network or a `factory`"
        )


@contextmanager
def silent_transformers() -> Iterator[None]:
    """Without bars, and without warnings of what is meant so, as labels that the data set replaces."""
    told = extra("transformers").utils.logging
    logger = logging.getLogger("transformers")
    level, had_bars = logger.level, told.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    told.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)
        if had_bars:
            told.enable_progress_bar()
