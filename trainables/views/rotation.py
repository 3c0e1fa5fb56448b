"""The steps `rotation` and `quarter_turn`: quarter turns, which move pixels and change none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainables.config.views import QuarterTurnStep, RotationStep, TurnBy
from trainables.errors import DataError
from trainables.views.choose import choose
from trainables.views.params import Frame, StepParams
from trainables.views.uniforms import Uniforms

# B = samples, C = channels, H = height, W = width


@dataclass(frozen=True)
class RotationParams(StepParams):
    """By how much each image is turned."""

    quarters_B: Tensor
    """int64 quarter turns anticlockwise, 0 to 3."""

    def apply(self, images_BCHW: Tensor) -> Tensor:
        """The turned images: those that turn by one or three quarters first, then halves."""
        odd_B111 = (self.quarters_B % 2 == 1)[:, None, None, None]
        half_B111 = (self.quarters_B >= 2)[:, None, None, None]
        turned = choose(odd_B111, images_BCHW.rot90(1, (2, 3)), images_BCHW)
        return choose(half_B111, turned.flip(2, 3), turned).contiguous()


def draw_rotation(step: RotationStep, uniforms: Uniforms, frame: Frame) -> RotationParams:
    """The view's turn, v mod 4 quarters in view v, or one of the four at random (field 0).

    Raises:
        DataError: the images are not square, so that a quarter turn would change their size.
    """
    require_square(frame.height, frame.width, asks="the step rotation")
    if step.by is TurnBy.VIEW:
        quarters_B = np.full(len(uniforms.state_B), frame.view % 4, dtype=np.int64)
    else:
        quarters_B = uniforms.below(0, 4)
    return RotationParams(torch.from_numpy(quarters_B))


@dataclass(frozen=True)
class QuarterTurnParams(StepParams):
    """By how much all images are turned."""

    turns: int
    """Quarter turns anticlockwise."""

    def apply(self, images_BCHW: Tensor) -> Tensor:
        """The turned images."""
        return quarter_turned(images_BCHW, self.turns)


def fixed_turn(step: QuarterTurnStep, uniforms: Uniforms, frame: Frame) -> QuarterTurnParams:
    """The step's turn, of which nothing is drawn.

    Raises:
        DataError: the images are not square.
    """
    require_square(frame.height, frame.width, asks="the step quarter_turn")
    return QuarterTurnParams(step.turns)


def quarter_turned(images_BCHW: Tensor, turns: int) -> Tensor:
    """The images after so many quarter turns anticlockwise."""
    return images_BCHW.rot90(turns, (2, 3)).contiguous()


def require_square(height: int, width: int, *, asks: str) -> None:
    """Refuse images that a quarter turn would bring to another size; `asks` says what wants to turn them.

    Raises:
        DataError: the images are not square.
    """
    if height != width:
        raise DataError(
            f"{asks} needs square images, these have {height} x {width} pixels; "
            "set data.image_size, or leave out what turns them"
        )
