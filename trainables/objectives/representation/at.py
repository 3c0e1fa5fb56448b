"""Where in an image the maps of each stage are large (AT: Zagoruyko and Komodakis, ICLR 2017)."""

# B = samples in the batch, C = channels, H = rows of places, W = columns of places, N = places

from __future__ import annotations

from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.config.objectives import AtConfig, AtForm
from trainables.objectives.representation.terms.composition import beside_kd
from trainables.objectives.representation.terms.unit_vectors import unit_or_zero
from trainables.signals import Losses, Objective, Signals, student_feature, teacher_feature
from trainables.tensors import at_least_fp32

_LEAST_ENERGY: Final = 1e-12
"""An image whose largest energy is less is divided by this: one that is 0 everywhere stays 0."""


class AtObjective(Objective[AtConfig]):
    """ce_weight · CE + kd_weight · KD + at_weight · attention.

    The attention of a map is its energy, the mean over channels of its square, flattened and of length 1
    (the paper's sum of squares, F²_sum of section 3.1, which differs by a factor that the length takes off).
    `attention` is the sum over the stages of

        form benchmark   the mean over images and places of the squared difference (the CRD benchmark)
        form norm        the mean over images of the difference's length (eq. 2 of the paper, weighted by
                         at_weight / 2); it is larger, so that at_weight should be far below 1000

    The first goes with 1 / places, and its weight of 1000 with maps of 32x32, 16x16 and 8x8 places: where the
    last map has 2x2, a hundredth of it already drowns the labels.

    Numbers of channels may differ. Where sizes do, the larger energies are average-pooled to the smaller
    size. The benchmark pools the map itself before it is squared: the two agree where sizes are equal, and
    differ else, for opposite values cancel in a mean and their squares do not. The mean of a map cannot be
    had from its energies, and energies are what a cache of reasonable size holds; so that teacher and student
    are treated alike, energies are pooled of whichever is larger. Terms: `ce`, `kd`, `attention`.
    """

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient.

        Raises:
            ValueError: the signals hold no such map of the student, or energy of the teacher.
        """
        config = self.config.at(signals.epoch, signals.epochs)
        stages = zip(config.student_features, config.teacher_features, strict=True)
        gaps = [
            attention_gap(
                energy_BHW(student_feature(signals, "weak", map_name)),
                teacher_feature(signals, "weak", energy_name),
                form=config.form,
            )
            for map_name, energy_name in stages
        ]
        weight = config.at_weight if config.form is AtForm.BENCHMARK else config.at_weight / 2
        return beside_kd(signals, config, {"attention": (weight, torch.stack(gaps).sum())})


def energy_BHW(map_BCHW: Tensor) -> Tensor:
    """The mean over channels of the squared map, at least in fp32."""
    energies_BHW: Tensor = _Energy.apply(at_least_fp32(map_BCHW))  # type: ignore[no-untyped-call]
    return energies_BHW


class _Energy(torch.autograd.Function):
    """The mean over channels of squares, whose gradient reads the map once: autograd's does four times."""

    @staticmethod
    def forward(ctx: Any, map_BCHW: Tensor) -> Tensor:
        ctx.save_for_backward(map_BCHW)
        return map_BCHW.square().mean(dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensor:
        (map_BCHW,) = ctx.saved_tensors
        scaled_BHW: Tensor = gradients[0] * (2 / map_BCHW.shape[1])
        product_BCHW: Tensor = map_BCHW * scaled_BHW[:, None]
        return product_BCHW


def attention_gap(student_BHW: Tensor, teacher_BHW: Tensor, *, form: AtForm) -> Tensor:
    """How far two energies of each image, of length 1, are apart: see `AtObjective` for the forms.

    A common factor of an image's energies changes nothing; an image of zeros has no attention anywhere. No
    gradient reaches the teacher.
    """
    teacher_BHW = teacher_BHW.detach()
    size = (
        min(student_BHW.shape[-2], teacher_BHW.shape[-2]),
        min(student_BHW.shape[-1], teacher_BHW.shape[-1]),
    )
    difference_BN = _attention(student_BHW, size) - _attention(teacher_BHW, size)
    if form is AtForm.BENCHMARK:
        return difference_BN.square().mean()
    # The gradient of a length at 0 is 0 in torch.
    length_B: Tensor = torch.linalg.vector_norm(difference_BN, dim=-1)
    return length_B.mean()


def _attention(energies_BHW: Tensor, size: tuple[int, int]) -> Tensor:
    energies_BHW = at_least_fp32(energies_BHW)
    if energies_BHW.shape[-2:] != size:
        energies_BHW = F.adaptive_avg_pool2d(energies_BHW, size)
    energies_BN = energies_BHW.flatten(1)
    # A factor of its own for each image changes neither value nor gradient; small energies need it.
    largest_B1 = energies_BN.detach().amax(dim=-1, keepdim=True)
    return unit_or_zero(energies_BN / largest_B1.clamp(min=_LEAST_ENERGY))
