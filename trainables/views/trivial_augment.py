"""The step `trivial_augment`: one operation, one of 31 magnitudes (Müller and Hutter, ICCV 2021).

List and ranges are those of the paper's wide space, as torchvision's `TrivialAugmentWide` has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trainables.config.views import TrivialAugmentStep
from trainables.views.operations import Operation, OperationsParams
from trainables.views.params import Frame
from trainables.views.uniforms import Uniforms

# B = samples

BINS: Final = 31

FACTORS: Final = (Operation.BRIGHTNESS, Operation.COLOUR, Operation.CONTRAST, Operation.SHARPNESS)
"""Their magnitude is what a factor differs from 1 by."""

RANGES: Final[Mapping[Operation, tuple[float, float]]] = MappingProxyType(
    {
        Operation.AUTOCONTRAST: (0.0, 0.0),
        Operation.BRIGHTNESS: (0.0, 0.99),
        Operation.COLOUR: (0.0, 0.99),
        Operation.CONTRAST: (0.0, 0.99),
        Operation.EQUALIZE: (0.0, 0.0),
        Operation.POSTERIZE: (8.0, 2.0),  # bits kept, rounded
        Operation.SHARPNESS: (0.0, 0.99),
        Operation.SOLARIZE: (255.0, 0.0),  # threshold
        Operation.IDENTITY: (0.0, 0.0),
        Operation.ROTATE: (0.0, 135.0),  # degrees, anticlockwise
        Operation.SHEAR_X: (0.0, 0.99),  # slope
        Operation.SHEAR_Y: (0.0, 0.99),  # slope
        Operation.TRANSLATE_X: (0.0, 32.0),  # pixels to the right, rounded towards 0
        Operation.TRANSLATE_Y: (0.0, 32.0),  # pixels down, rounded towards 0
    }
)
"""From the first to the last bin."""

UNSIGNED: Final = (Operation.POSTERIZE, Operation.SOLARIZE)


def draw_trivial_augment(step: TrivialAugmentStep, uniforms: Uniforms, frame: Frame) -> OperationsParams:
    """One operation for each sample (fields 0 operation, 1 bin, 2 sign)."""
    operation_B = uniforms.below(0, len(Operation))
    magnitude_B = magnitudes()[operation_B, uniforms.below(1, BINS)]
    signed_B = ~np.isin(operation_B, UNSIGNED) & (uniforms.unit(2) < 0.5)
    magnitude_B = np.where(signed_B, -magnitude_B, magnitude_B)
    magnitude_B += np.isin(operation_B, FACTORS)
    return OperationsParams.of(operation_B[:, None], magnitude_B[:, None], frame)


def magnitudes() -> NDArray[np.float64]:
    """The 31 magnitudes of each operation, before their sign: a row for each number of `Operation`."""
    first, last = np.array([RANGES[operation] for operation in Operation]).T[:, :, None]
    table: NDArray[np.float64] = first + (last - first) * np.arange(BINS) / (BINS - 1)
    table[Operation.POSTERIZE] = np.rint(table[Operation.POSTERIZE])
    for operation in (Operation.TRANSLATE_X, Operation.TRANSLATE_Y):
        table[operation] = np.floor(table[operation])
    return table
