"""The step `randaugment`: FixMatch's form, whose operations and strengths are all drawn uniformly.

Sources: Cubuk et al., "RandAugment" (2020), and the list and ranges of Sohn et al., "FixMatch" (2020),
as CRLD and MLLD use them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trainables.config.views import RandAugmentStep
from trainables.views.operations import Operation, OperationsParams
from trainables.views.params import Frame
from trainables.views.uniforms import Uniforms

# B = samples, K = operations applied to each sample

RANGES: Final[Mapping[Operation, tuple[float, float]]] = MappingProxyType(
    {
        Operation.AUTOCONTRAST: (0.0, 0.0),
        Operation.BRIGHTNESS: (0.05, 0.95),  # factor
        Operation.COLOUR: (0.05, 0.95),  # factor
        Operation.CONTRAST: (0.05, 0.95),  # factor
        Operation.EQUALIZE: (0.0, 0.0),
        Operation.POSTERIZE: (4.0, 8.0),  # bits kept, rounded down
        Operation.SHARPNESS: (0.05, 0.95),  # factor
        Operation.SOLARIZE: (0.0, 256.0),  # threshold
        Operation.IDENTITY: (0.0, 0.0),
        Operation.ROTATE: (-30.0, 30.0),  # degrees, anticlockwise
        Operation.SHEAR_X: (-0.3, 0.3),  # slope
        Operation.SHEAR_Y: (-0.3, 0.3),  # slope
        Operation.TRANSLATE_X: (-0.3, 0.3),  # fraction of the width, to the right
        Operation.TRANSLATE_Y: (-0.3, 0.3),  # fraction of the height, down
    }
)


def draw_randaugment(step: RandAugmentStep, uniforms: Uniforms, frame: Frame) -> OperationsParams:
    """Operations with replacement and their magnitudes (fields 2k operation, 2k + 1 magnitude).

    A magnitude is uniform in its range. Bits are rounded down, so 4 to 7 are equally likely. A translation
    is that fraction of the side, rounded to whole pixels, halves up: floor(fraction · side + 0.5).
    """
    places = range(step.operations)
    operation_BK = np.stack([uniforms.below(2 * k, len(Operation)) for k in places], axis=1)
    unit_BK = np.stack([uniforms.unit(2 * k + 1) for k in places], axis=1)
    low, high = np.array([RANGES[operation] for operation in Operation]).T
    magnitude_BK = low[operation_BK] + unit_BK * (high - low)[operation_BK]
    _round_some(operation_BK, magnitude_BK, frame)
    return OperationsParams.of(operation_BK, magnitude_BK, frame)


def _round_some(operation_BK: NDArray[np.int64], magnitude_BK: NDArray[np.float64], frame: Frame) -> None:
    """Turn, in place, bits into whole bits, and fractions of a side into whole pixels."""
    bits = operation_BK == Operation.POSTERIZE
    magnitude_BK[bits] = np.floor(magnitude_BK[bits])
    for operation, side in ((Operation.TRANSLATE_X, frame.width), (Operation.TRANSLATE_Y, frame.height)):
        moved = operation_BK == operation
        magnitude_BK[moved] = np.floor(magnitude_BK[moved] * side + 0.5)
