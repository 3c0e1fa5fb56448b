"""The steps `mixup` and `cutmix`: an image of a sample and of a partner, the same view of another sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.config.views import CutmixStep, MixingStep, MixupStep
from trainables.views.choose import choose
from trainables.views.geometry import inside_boxes
from trainables.views.params import Frame, MixingParams, ViewParams
from trainables.views.portable import SHARE_BITS, SHARE_STEPS, beta_steps
from trainables.views.uniforms import Uniforms

# B = samples, C = channels, H = height, W = width

FIELD_PARTNER = 0
FIELD_SHARE = 1
FIELD_CHANCE = 2


@dataclass(frozen=True)
class MixupParams(MixingParams):
    """Two images, blended."""

    steps_B: Tensor
    """int32; the sample's own share in whole steps, 0 .. SHARE_STEPS."""

    def mix(self, images_BCHW: Tensor, partners_BCHW: Tensor) -> Tensor:
        """share · image + (1 - share) · partner, rounded to whole levels, halves up."""
        steps = self.steps_B[:, None, None, None]
        total = (images_BCHW * steps).add_(partners_BCHW * (SHARE_STEPS - steps)).add_(SHARE_STEPS // 2)
        return total.bitwise_right_shift_(SHARE_BITS).to(torch.uint8)


@dataclass(frozen=True)
class CutmixParams(MixingParams):
    """Two images, the second shown in a box."""

    box_B4: Tensor
    """int64 pixels: left, top, right, bottom; right and bottom are the first pixels outside."""

    def mix(self, images_BCHW: Tensor, partners_BCHW: Tensor) -> Tensor:
        """The images with the partners' pixels in their boxes."""
        box_BHW = inside_boxes(self.box_B4, (images_BCHW.shape[2], images_BCHW.shape[3]))
        return choose(box_BHW[:, None], partners_BCHW, images_BCHW)


@dataclass(frozen=True)
class Partners:
    """Who is mixed into whom."""

    row_B: NDArray[np.int64]
    """Places among the training samples in the order of their ids."""
    view: ViewParams
    """Their view, up to the mixing step."""


def partner_rows(
    uniforms: Uniforms, ids_B: NDArray[np.int64], population_N: NDArray[np.int64]
) -> NDArray[np.int64]:
    """A partner for each sample, any other of the population alike (field 0); its place in it.

    A sample that is alone in its population is its own partner.

    Raises:
        ValueError: the population is not in ascending order, or lacks one of the samples.
    """
    own_B = np.searchsorted(population_N, ids_B).clip(max=len(population_N) - 1)
    if len(ids_B) and not np.array_equal(population_N[own_B], ids_B):
        raise ValueError(
            "a mixing step draws partners from the ids of all training samples, in ascending order; "
            "those given lack some of the samples of this view"
        )
    others = max(len(population_N) - 1, 1)
    row_B = uniforms.below(FIELD_PARTNER, others)
    return row_B + (row_B >= own_B) if len(population_N) > 1 else row_B


def draw_mixup(step: MixupStep, uniforms: Uniforms, frame: Frame, partners: Partners) -> MixupParams:
    """Shares for each sample (fields 0 partner, 1 share, 2 whether it is mixed at all)."""
    steps_B = _own_steps(step, uniforms)
    return MixupParams(
        partner_row_B=torch.from_numpy(partners.row_B),
        partners=partners.view,
        share_B=torch.from_numpy((steps_B / SHARE_STEPS).astype(np.float32)),
        steps_B=torch.from_numpy(steps_B.astype(np.int32)),
    )


def draw_cutmix(step: CutmixStep, uniforms: Uniforms, frame: Frame, partners: Partners) -> CutmixParams:
    """Boxes for each sample (fields 0 to 2 as mixup's, 3 centre's column, 4 centre's row).

    As in the paper and in torchvision: with share λ, half the box's sides are floor(√(1 - λ) / 2 · side), its
    centre is a uniform pixel, the edges of the image cut it, and the share becomes what of the image is left.
    """
    half_B = 0.5 * np.sqrt(1.0 - _own_steps(step, uniforms) / SHARE_STEPS)
    edges = []
    for field, side in ((3, frame.width), (4, frame.height)):
        centre_B, reach_B = uniforms.below(field, side), np.floor(half_B * side).astype(np.int64)
        edges.append((np.maximum(centre_B - reach_B, 0), np.minimum(centre_B + reach_B, side)))
    (left_B, right_B), (top_B, bottom_B) = edges
    share_B = 1.0 - (right_B - left_B) * (bottom_B - top_B) / (frame.width * frame.height)
    return CutmixParams(
        partner_row_B=torch.from_numpy(partners.row_B),
        partners=partners.view,
        share_B=torch.from_numpy(share_B.astype(np.float32)),
        box_B4=torch.from_numpy(np.stack([left_B, top_B, right_B, bottom_B], axis=1)),
    )


def _own_steps(step: MixingStep, uniforms: Uniforms) -> NDArray[np.int64]:
    """The samples' own shares in whole steps; all of them where a sample is not mixed."""
    mixed_B = uniforms.unit(FIELD_CHANCE) < step.probability
    return np.where(mixed_B, beta_steps(uniforms.unit(FIELD_SHARE), step.alpha), SHARE_STEPS)
