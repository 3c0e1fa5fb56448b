"""What size of images a library's network is made for, and how little of small ones it leaves."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.models.modes import evaluating

_SPATIAL_DIM = 4
_ENLARGED = (2, 4, 8, 16)


def size_argument(model: nn.Module) -> str | None:
    """What a library's builder calls the side of the images; none where that is not fixed."""
    for module in model.modules():
        if hasattr(getattr(module, "config", None), "image_size"):
            return "image_size"
        facts = getattr(module, "pretrained_cfg", None)
        if isinstance(facts, Mapping) and facts.get("fixed_input_size"):
            return "img_size"
    return None


def side_to_show(model: nn.Module, images_BCHW: Tensor) -> int | None:
    """The side to which images are to be enlarged, where the network reduces them to a pixel before its end.

    None where it does not, or where no side up to sixteen times theirs helps.
    """
    side = min(images_BCHW.shape[-2:])
    if last_map_side(model, images_BCHW) != 1 or side == 1:
        return None
    for times in _ENLARGED:
        larger = functional.interpolate(images_BCHW, scale_factor=times)
        if (last_map_side(model, larger) or 0) > 1:
            return int(side * times)
    return None


def last_map_side(model: nn.Module, images_BCHW: Tensor) -> int | None:
    """The side of the smallest map that a convolution of the network is given; none where it has none.

    Of the convolutions over space: one that is given 1x1 after pooling, as in squeeze and excitation, is not.
    """
    sides: list[int] = []

    def note(module: nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
        if max(module.kernel_size) > 1 and inputs[0].dim() == _SPATIAL_DIM:
            sides.append(min(inputs[0].shape[-2:]))

    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    handles = [module.register_forward_pre_hook(note) for module in convolutions]
    try:
        with torch.no_grad(), evaluating(model):
            model(images_BCHW)
    finally:
        for handle in handles:
            handle.remove()
    return min(sides, default=None)
