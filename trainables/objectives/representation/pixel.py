"""Fewer pixels for the student (Pixel Distillation: Guo et al., TPAMI 2024, arXiv 2112.09532)."""

# B = samples in the batch, C = channels of a map, H, W = height and width, s = by how much a map is enlarged

from __future__ import annotations

import math
from typing import Final

import torch.nn.functional as F
from torch import Tensor, nn

from trainables.config.representation.bases import LAST_MAP
from trainables.config.representation.inputs import FIRST_CONV, PixelConfig
from trainables.errors import TrialFailed
from trainables.objectives.representation.terms.composition import beside_kd
from trainables.objectives.representation.terms.heads import head_output
from trainables.signals import Losses, Setting, Signals, StatefulObjective, student_feature, teacher_feature
from trainables.tensors import at_least_fp32

_BANK: Final = "weak"


class PixelObjective(StatefulObjective[PixelConfig]):
    """ce_weight · CE + kd_weight · T² KL(teacher ‖ student) + eta · mean |drawn - image|.

    The student has a `resolution` below the data's: its first layer makes the view small that the teacher
    sees as it is, so both see one crop, and the exported student takes images of the data's size. From what
    its first convolution gives (before batch norm and activation; of a vision transformer its patch
    embedding, which is inferred), a `SuperResolution` draws the normalised image again.
    Terms: `ce`, `kd`, `image` (which, times eta, is tens at first), and `feature` where it is weighed.

    The paper's route over an assistant is two experiments. In the first, the assistant is the student:
    `student` names the final student's network without `resolution`, and the objective is kd. In the
    second, `teacher` names that network, with the weights of the first one's champion as its `checkpoint`,
    `student` has the `resolution`, and the objective is pixel. There + feature_weight · MSE becomes possible,
    of the last feature maps, the student's enlarged to the assistant's size (bilinear, corners aligned);
    the weight is inferred, and both maps need as many channels, as one architecture gives them.
    """

    def __init__(self, config: PixelConfig, setting: Setting | None = None) -> None:
        """Raises:
        TrialFailed: the last maps differ in channels, and `feature_weight` compares them.
        ValueError: there is no setting, or it lacks the shapes of image and features.
        """
        super().__init__(config, setting)
        shapes, taught = self.setting.student_shapes, self.setting.teacher_shapes
        self.draw: SuperResolution | None = None
        if config.eta > 0:
            if self.setting.image_shape is None or FIRST_CONV not in shapes:
                raise ValueError(
                    "pixel is made for the shapes of image and first_conv; give both in the setting"
                )
            self.draw = SuperResolution(shapes[FIRST_CONV], self.setting.image_shape)
        if config.feature_weight > 0 and shapes[LAST_MAP][0] != taught[LAST_MAP][0]:
            raise TrialFailed(
                "feature_weight compares last feature maps; the student's has "
                f"{shapes[LAST_MAP][0]} channels, the teacher's {taught[LAST_MAP][0]}; take an assistant of "
                "the student's architecture as teacher, or set feature_weight to 0"
            )

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient.

        Raises:
            ValueError: the signals lack images or a feature.
        """
        config = self.config.at(signals.epoch, signals.epochs)
        own = {}
        if self.draw is not None:
            if _BANK not in signals.images:
                raise ValueError("pixel draws the student's images; serve it signals with images")
            drawn_BCHW = head_output(self.draw, student_feature(signals, _BANK, FIRST_CONV))
            own["image"] = (config.eta, absolute_difference(drawn_BCHW, signals.images[_BANK]))
        if self.config.feature_weight > 0:
            student_BCHW = student_feature(signals, _BANK, LAST_MAP)
            difference = enlarged_difference(student_BCHW, teacher_feature(signals, _BANK, LAST_MAP))
            own["feature"] = (config.feature_weight, difference)
        return beside_kd(signals, config, own)


class SuperResolution(nn.Module):
    """Conv1x1 without bias, PixelShuffle(s), PReLU with a slope a channel, cut to the image's size.

    s is the smallest whole number by which a map becomes at least as high and wide as the image. What is cut
    off is a pixel or so at the paper's sizes. Where it is much, as of a map of 6 for an image of 8, positions
    of the map and of the image part ways: a `resolution` that divides the image's size avoids it.
    """

    def __init__(self, map_shape: tuple[int, ...], image_shape: tuple[int, int, int]) -> None:
        """Both shapes are (channels, height, width).

        Raises:
            ValueError: the map is none.
        """
        super().__init__()
        if len(map_shape) != 3:
            raise ValueError(f"a feature of shape {map_shape} is no map; give channels, height and width")
        channels, self.height, self.width = image_shape
        self.scale = max(math.ceil(self.height / map_shape[1]), math.ceil(self.width / map_shape[2]))
        self.spread = nn.Conv2d(map_shape[0], channels * self.scale**2, kernel_size=1, bias=False)
        self.shuffle = nn.PixelShuffle(self.scale)
        self.activate = nn.PReLU(channels)

    def forward(self, map_BCHW: Tensor) -> Tensor:
        """Images BxCxHxW; what lies below or to the right of their size is cut off."""
        enlarged_BCHW: Tensor = self.activate(self.shuffle(self.spread(map_BCHW)))
        return enlarged_BCHW[..., : self.height, : self.width]


def absolute_difference(drawn_BCHW: Tensor, image_BCHW: Tensor) -> Tensor:
    """Mean over all numbers of |drawn - image|; no gradient reaches the image.

    Raises:
        ValueError: they differ in shape.
    """
    if drawn_BCHW.shape != image_BCHW.shape:
        raise ValueError(
            f"drawn {tuple(drawn_BCHW.shape)} and images {tuple(image_BCHW.shape)} differ in shape; make the "
            "objective for the shape of these images"
        )
    return F.l1_loss(drawn_BCHW, image_BCHW.detach().to(drawn_BCHW.dtype))


def enlarged_difference(student_BCHW: Tensor, teacher_BCHW: Tensor) -> Tensor:
    """Mean squared difference of the student's map, at the teacher's height and width, and the teacher's."""
    enlarged_BCHW = F.interpolate(
        at_least_fp32(student_BCHW), size=teacher_BCHW.shape[-2:], mode="bilinear", align_corners=True
    )
    return F.mse_loss(enlarged_BCHW, teacher_BCHW.detach().to(enlarged_BCHW.dtype))
