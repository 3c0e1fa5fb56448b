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
from trainables.views.params import Frame, StepParams
from trainables.views.uniforms import Uniforms

# B = samples, C = channels, H = height, W = width

ATTEMPTS: Final = 10
FIELD_TOP: Final = 2 * ATTEMPTS
FIELD_LEFT: Final = 2 * ATTEMPTS + 1


@dataclass(frozen=True)
class ResizedCropParams(StepParams):
    """The box that each image is cut down to."""

    box_B4: Tensor
    """int64 pixels: top, left, height, width; wholly inside the image."""

    def apply(self, images_BCHW: Tensor) -> Tensor:
        """The boxes, each stretched to the size of the image."""
        return stretch(images_BCHW, self.box_B4)


def draw_resized_crop(step: RandomResizedCropStep, uniforms: Uniforms, frame: Frame) -> ResizedCropParams:
    """The boxes that `boxes` draws for images of one size."""
    height_B = np.full(len(uniforms.state_B), frame.height, dtype=np.int64)
    width_B = np.full_like(height_B, frame.width)
    return ResizedCropParams(torch.from_numpy(boxes(step, uniforms, height_B, width_B)))


def boxes(
    step: RandomResizedCropStep,
    uniforms: Uniforms,
    height_B: NDArray[np.int64],
    width_B: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Bx4 as torchvision's `RandomResizedCrop` draws them (fields 2a area, 2a + 1 aspect of attempt a).

    Top, left, height and width in pixels, for images of these heights and widths. The area is uniform in
    `scale`, the logarithm of width over height in that of `ratio`; sides are rounded to whole pixels. The
    first of ten attempts that fits into the image counts, and its place is uniform (fields 20 top, 21 left).
    When none fits, the box is the largest in the middle with an aspect in `ratio`.
    """
    tall_B, wide_B = _sides(step, uniforms, height_B, width_B)
    fits_B = tall_B > 0
    top_B = np.floor(uniforms.unit(FIELD_TOP) * (height_B - tall_B + 1)).astype(np.int64)
    left_B = np.floor(uniforms.unit(FIELD_LEFT) * (width_B - wide_B + 1)).astype(np.int64)
    middle_tall_B, middle_wide_B = _middle(step, height_B, width_B)
    middle_top_B, middle_left_B = (height_B - middle_tall_B) // 2, (width_B - middle_wide_B) // 2
    box_B4 = np.stack([top_B, left_B, tall_B, wide_B], axis=1)
    middle_B4 = np.stack([middle_top_B, middle_left_B, middle_tall_B, middle_wide_B], axis=1)
    return np.where(fits_B[:, None], box_B4, middle_B4)


def _sides(
    step: RandomResizedCropStep,
    uniforms: Uniforms,
    height_B: NDArray[np.int64],
    width_B: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Heights and widths of the first attempt that fits; 0 and 0 where none does."""
    first, last = (portable.ln(ratio) for ratio in step.ratio)
    box_height_B, box_width_B = np.zeros_like(height_B), np.zeros_like(width_B)
    for attempt in range(ATTEMPTS):
        open_B = np.flatnonzero(box_height_B == 0)
        if not len(open_B):
            break
        still = uniforms.of_rows(open_B)
        share_B = step.scale[0] + still.unit(2 * attempt) * (step.scale[1] - step.scale[0])
        aspect_B = portable.exp(first + still.unit(2 * attempt + 1) * (last - first))
        area_B = height_B[open_B] * width_B[open_B]
        tall_B = np.rint(np.sqrt(area_B * share_B / aspect_B)).astype(np.int64)
        wide_B = np.rint(np.sqrt(area_B * share_B * aspect_B)).astype(np.int64)
        fits_B = (tall_B > 0) & (tall_B <= height_B[open_B]) & (wide_B > 0) & (wide_B <= width_B[open_B])
        box_height_B[open_B[fits_B]], box_width_B[open_B[fits_B]] = tall_B[fits_B], wide_B[fits_B]
    return box_height_B, box_width_B


def _middle(
    step: RandomResizedCropStep, height_B: NDArray[np.int64], width_B: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Heights and widths of the largest boxes whose aspect is within the bounds."""
    narrowest, widest = step.ratio
    aspect_B = width_B / height_B
    lower_B = np.maximum(1, np.rint(width_B / narrowest)).astype(np.int64)
    slimmer_B = np.maximum(1, np.rint(height_B * widest)).astype(np.int64)
    return (
        np.where(aspect_B < narrowest, lower_B, height_B),
        np.where(aspect_B > widest, slimmer_B, width_B),
    )
