"""The step `crop_flip`: pad with black, crop back at a random place, mirror at random."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.config.views import CropFlipStep
from trainables.views.geometry import crop_and_mirror
from trainables.views.params import Frame, StepParams
from trainables.views.uniforms import Uniforms

# B = samples, C = channels, H = height, W = width


@dataclass(frozen=True)
class CropFlipParams(StepParams):
    """Where each crop begins in the padded image, and which images are mirrored after it."""

    padding: int
    top_B: Tensor
    """int64, 0 .. 2 · padding."""
    left_B: Tensor
    """int64, 0 .. 2 · padding."""
    flip_B: Tensor
    """bool."""

    def apply(self, images_BCHW: Tensor) -> Tensor:
        """The cropped and mirrored images."""
        return crop_and_mirror(
            images_BCHW, padding=self.padding, top_B=self.top_B, left_B=self.left_B, mirror_B=self.flip_B
        )


def draw_crop_flip(step: CropFlipStep, uniforms: Uniforms, frame: Frame) -> CropFlipParams:
    """Crops and mirrors for each sample (fields 0 top, 1 left, 2 mirror); no part depends on the frame."""
    places = 2 * step.padding + 1
    return CropFlipParams(
        padding=step.padding,
        top_B=torch.from_numpy(uniforms.below(0, places)),
        left_B=torch.from_numpy(uniforms.below(1, places)),
        flip_B=torch.from_numpy(uniforms.unit(2) < step.flip_probability),
    )
