"""The step `cutout`: a filled square of random side at a random place, as in FixMatch and CRLD."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainables.config.views import CutoutStep
from trainables.views.choose import choose
from trainables.views.geometry import inside_boxes
from trainables.views.params import Frame, StepParams
from trainables.views.uniforms import Uniforms

# B = samples, C = channels, H = height, W = width


@dataclass(frozen=True)
class CutoutParams(StepParams):
    """The box to fill in each image."""

    fill: tuple[int, int, int]
    box_B4: Tensor
    """int64 pixels: left, top, right, bottom; right and bottom are the first pixels outside."""

    def apply(self, images_BCHW: Tensor) -> Tensor:
        """The images with their boxes filled; a grey image takes the mean of the fill, rounded."""
        channels, height, width = images_BCHW.shape[1:]
        box_BHW = inside_boxes(self.box_B4, (height, width))
        fill = self.fill if channels == 3 else (round(sum(self.fill) / 3),)
        fill_C11 = torch.tensor(fill, dtype=torch.uint8, device=images_BCHW.device)[:, None, None]
        return choose(box_BHW[:, None], fill_C11, images_BCHW)


def draw_cutout(step: CutoutStep, uniforms: Uniforms, frame: Frame) -> CutoutParams:
    """Boxes for each sample (fields 0 side, 1 centre's column, 2 centre's row).

    The side is v · width pixels, v uniform in [0, max_fraction]; the centre is uniform in the image. The
    box begins at floor(max(0, centre - side / 2)), so that the left and top edges shift it, and ends
    ceil(side) pixels on or at the right or bottom edge, which cut it.
    """
    height, width, _ = frame
    side_B = uniforms.unit(0) * step.max_fraction * width
    whole_B = np.ceil(side_B)
    left_B = np.floor(np.maximum(0.0, uniforms.unit(1) * width - side_B / 2))
    top_B = np.floor(np.maximum(0.0, uniforms.unit(2) * height - side_B / 2))
    right_B = np.minimum(width, left_B + whole_B)
    bottom_B = np.minimum(height, top_B + whole_B)
    box_B4 = np.stack([left_B, top_B, right_B, bottom_B], axis=1).astype(np.int64)
    return CutoutParams(fill=step.fill, box_B4=torch.from_numpy(box_B4))
