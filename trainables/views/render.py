"""The second half of a view: the drawn parameters applied to images, with nothing random in it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trainables.errors import DataError
from trainables.views.params import MixingParams, ViewParams

# B = samples, C = channels (1 or 3), H = height, W = width

Originals = Callable[[Tensor], Tensor]
"""From places among the training samples, in the order of their ids, to their images as the data has them."""


def render(images_BCHW: Tensor, params: ViewParams, originals: Originals | None = None) -> Tensor:
    """The view of each image: uint8 BxCxHxW, on the device of the images, where `params` must be too.

    Row b of the result depends on row b of the arguments alone. Without steps, the images themselves come
    back; they are never written to. Where samples are mixed, `originals` gives the partners' images, on the
    same device.

    Raises:
        DataError: if the images are not uint8 with 1 or 3 channels.
        ValueError: if the parameters were drawn for another number of samples or another size, or samples are
            mixed and `originals` is missing.
    """
    if images_BCHW.dtype != torch.uint8 or images_BCHW.ndim != 4 or images_BCHW.shape[1] not in (1, 3):
        raise DataError(
            f"views are made from uint8 images of shape (batch, 1 or 3 channels, height, width); "
            f"got {images_BCHW.dtype} of shape {tuple(images_BCHW.shape)}"
        )
    if len(params) != len(images_BCHW) or params.size != tuple(images_BCHW.shape[2:]):
        raise ValueError(
            f"the view was drawn for {len(params)} images of (height, width) {params.size}, but "
            f"{len(images_BCHW)} images of {tuple(images_BCHW.shape[2:])} came; take the rows of this batch"
        )
    if len(params) == 0:
        return images_BCHW
    for part in params.parts:
        if isinstance(part, MixingParams):
            images_BCHW = part.mix(images_BCHW, _partners(part, originals))
        else:
            images_BCHW = part.apply(images_BCHW)
    return images_BCHW


def _partners(part: MixingParams, originals: Originals | None) -> Tensor:
    if originals is None:
        raise ValueError("this view mixes samples; give render the images of the training samples to mix in")
    return render(originals(part.partner_row_B), part.partners, originals)
