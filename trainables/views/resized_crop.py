"""The step `random_resized_crop`: cut out a box of random area and aspect, stretch it to the image's size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.config.views import RandomResizedCropStep
from trainables.views import portable
from trainables.views.geometry import stretch
from trainables.views.params import Frame, Part
from trainables.views.uniforms import Uniforms

# B = samples, C = channels, H = height, W = width

ATTEMPTS: Final = 10
FIELD_TOP: Final = 2 * ATTEMPTS
FIELD_LEFT: Final = 2 * ATTEMPTS + 1


@dataclass(frozen=True)
class ResizedCropPart(Part):
    """The box that each image is cut down to."""

    box_B4: Tensor
    """int64 pixels: top, left, height, width; wholly inside the image."""

    def apply(self, images_BCHW: Tensor) -> Tensor:
        """The boxes, each stretched to the size of the image."""
        return stretch(images_BCHW, self.box_B4)


def draw_resized_crop(step: RandomResizedCropStep, uniforms: Uniforms, frame: Frame) -> ResizedCropPart:
    """Boxes as torchvision's `RandomResizedCrop` draws them (fields 2a area, 2a + 1 aspect of attempt a).

    The area is uniform in `scale`, the logarithm of width over height in that of `ratio`; sides are rounded
    to whole pixels. The first of ten attempts that fits into the image counts, and its place is uniform
    (fields 20 top, 21 left). When none fits, the box is the largest in the middle with an aspect in `ratio`.
    """
    height_B, width_B = _sides(step, uniforms, frame)
    fits_B = height_B > 0
    spare_height_B, spare_width_B = frame.height - height_B, frame.width - width_B
    top_B = np.floor(uniforms.unit(FIELD_TOP) * (spare_height_B + 1)).astype(np.int64)
    left_B = np.floor(uniforms.unit(FIELD_LEFT) * (spare_width_B + 1)).astype(np.int64)
    height, width = _middle(step, frame)
    middle = np.array([(frame.height - height) // 2, (frame.width - width) // 2, height, width])
    box_B4 = np.stack([top_B, left_B, height_B, width_B], axis=1)
    return ResizedCropPart(torch.from_numpy(np.where(fits_B[:, None], box_B4, middle)))


def _sides(
    step: RandomResizedCropStep, uniforms: Uniforms, frame: Frame
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Heights and widths of the first attempt that fits; 0 and 0 where none does."""
    area = frame.height * frame.width
    first, last = (portable.ln(ratio) for ratio in step.ratio)
    height_B = np.zeros(len(uniforms.state_B), dtype=np.int64)
    width_B = np.zeros_like(height_B)
    for attempt in range(ATTEMPTS):
        open_B = np.flatnonzero(height_B == 0)
        if not len(open_B):
            break
        still = uniforms.of_rows(open_B)
        share_B = step.scale[0] + still.unit(2 * attempt) * (step.scale[1] - step.scale[0])
        aspect_B = portable.exp(first + still.unit(2 * attempt + 1) * (last - first))
        tall_B = np.rint(np.sqrt(area * share_B / aspect_B)).astype(np.int64)
        wide_B = np.rint(np.sqrt(area * share_B * aspect_B)).astype(np.int64)
        fits_B = (tall_B > 0) & (tall_B <= frame.height) & (wide_B > 0) & (wide_B <= frame.width)
        height_B[open_B[fits_B]], width_B[open_B[fits_B]] = tall_B[fits_B], wide_B[fits_B]
    return height_B, width_B


def _middle(step: RandomResizedCropStep, frame: Frame) -> tuple[int, int]:
    """Height and width of the largest box whose aspect is within the bounds."""
    narrowest, widest = step.ratio
    aspect = frame.width / frame.height
    if aspect < narrowest:
        return max(1, round(frame.width / narrowest)), frame.width
    if aspect > widest:
        return frame.height, max(1, round(frame.height * widest))
    return frame.height, frame.width
