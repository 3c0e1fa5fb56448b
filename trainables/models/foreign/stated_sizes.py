"""At what size a teacher's images were shown to it, as its library or its folder states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from trainables.checkpoint_header import preprocessor, weights_file
from trainables.config import ModelConfig, ModelName
from trainables.config.checkpoints import is_published, published_tag
from trainables.errors import ConfigError
from trainables.foreign_files import Unreadable, foreign_file
from trainables.models.foreign.extras import extra

_CROPS_BELOW: Final = 384
"""ConvNeXt's preprocessor scales to more than is kept below this size, and stretches from it on."""


@dataclass(frozen=True)
class StatedSize:
    """The side of the square that a network is shown, and how an image is brought to it."""

    side: int
    shorter: int | None
    """To which the shorter side is scaled before the centre is cut; none: both sides are scaled to `side`."""

    @property
    def rule(self) -> str:
        """In words."""
        if self.shorter is None:
            return f"stretched to {self.side}x{self.side}"
        return (
            f"their shorter side scaled to {self.shorter}, and the {self.side}x{self.side} in the middle cut"
        )


def stated_size(model: ModelConfig, checkpoint: str | None) -> StatedSize | None:
    """What is stated for these weights of a network; none where nobody states it, or they are trained here.

    For `published` weights the library is asked; for a file, the folder of transformers that it lies in.
    """
    if checkpoint is None:
        return None
    try:
        with foreign_file(Unreadable):
            if not is_published(checkpoint):
                return _of_preprocessor(preprocessor(Path(checkpoint)))
            if model.folder is not None:
                return _of_preprocessor(preprocessor(weights_file(model.folder)))
            match model.name:
                case ModelName.TIMM:
                    return _of_timm(str(model.variant), published_tag(checkpoint))
                case ModelName.TORCHVISION:
                    return _of_torchvision(str(model.variant), published_tag(checkpoint))
    except (Unreadable, ConfigError):  # the checks of networks and weights tell what is wrong with them
        return None
    return None


def _of_preprocessor(said: Mapping[str, Any]) -> StatedSize | None:
    size, cut = said.get("size"), said.get("crop_size")
    if not said or not said.get("do_resize", True):
        return None
    shortest = size.get("shortest_edge") if isinstance(size, Mapping) else None
    if shortest is None:
        side = _side_of(size)
        return None if side is None else StatedSize(side, None)
    if (part := said.get("crop_pct")) is not None:
        return StatedSize(int(shortest), int(shortest / part) if shortest < _CROPS_BELOW else None)
    side = _side_of(cut) if said.get("do_center_crop", False) else None
    return StatedSize(side or int(shortest), int(shortest))


def _side_of(size: object) -> int | None:
    """The side of a square; none for other shapes."""
    if isinstance(size, Mapping):
        height, width = size.get("height"), size.get("width")
        return int(height) if height is not None and height == width else None
    return int(size) if isinstance(size, int) else None


def _of_timm(variant: str, tag: str | None) -> StatedSize | None:
    facts = extra("timm").get_pretrained_cfg(variant if tag is None else f"{variant.partition('.')[0]}.{tag}")
    if facts is None:
        return None
    side = int(facts.input_size[-1])
    stretched = facts.crop_mode == "squash"
    return StatedSize(side, None if stretched else int(side / facts.crop_pct))


def _of_torchvision(variant: str, tag: str | None) -> StatedSize | None:
    import torchvision  # late: it takes as long to import as torch

    transforms = torchvision.models.get_model_weights(variant)[tag or "DEFAULT"].transforms()
    return StatedSize(int(transforms.crop_size[0]), int(transforms.resize_size[0]))
