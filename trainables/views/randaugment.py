"""The step `randaugment`: FixMatch's form, whose operations and strengths are all drawn uniformly.

Sources: Cubuk et al., "RandAugment" (2020), and the list and ranges of Sohn et al., "FixMatch" (2020),
as CRLD and MLLD use them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.config.views import RandAugmentStep
from trainables.views import colour, geometry
from trainables.views.params import Part
from trainables.views.uniforms import Uniforms

# B = samples, C = channels, H = height, W = width, K = operations applied to each sample
# 6 = inverse map, see geometry.py


class Operation(IntEnum):
    """The 14 operations; a draw keeps these numbers, so none ever changes its meaning.

    Sorted by them, the geometric operations stand together, and one warp serves them all.
    """

    AUTOCONTRAST = 0
    BRIGHTNESS = 1
    COLOUR = 2
    CONTRAST = 3
    EQUALIZE = 4
    POSTERIZE = 5
    SHARPNESS = 6
    SOLARIZE = 7
    IDENTITY = 8
    ROTATE = 9
    SHEAR_X = 10
    SHEAR_Y = 11
    TRANSLATE_X = 12
    TRANSLATE_Y = 13


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

COLOUR: Final[Mapping[Operation, Callable[[Tensor, Tensor], Tensor]]] = MappingProxyType(
    {
        Operation.AUTOCONTRAST: lambda images, _: colour.autocontrast(images),
        Operation.BRIGHTNESS: colour.brightness,
        Operation.COLOUR: colour.saturation,
        Operation.CONTRAST: colour.contrast,
        Operation.EQUALIZE: lambda images, _: colour.equalize(images),
        Operation.POSTERIZE: colour.posterize,
        Operation.SHARPNESS: colour.sharpness,
        Operation.SOLARIZE: colour.solarize,
        Operation.IDENTITY: lambda images, _: images,
    }
)

InverseMaps = Callable[[NDArray[np.float64], tuple[int, int]], NDArray[np.int64]]
GEOMETRY: Final[Mapping[Operation, InverseMaps]] = MappingProxyType(
    {
        Operation.ROTATE: geometry.rotation_map,
        Operation.SHEAR_X: geometry.shear_x_map,
        Operation.SHEAR_Y: geometry.shear_y_map,
        Operation.TRANSLATE_X: geometry.translation_x_map,
        Operation.TRANSLATE_Y: geometry.translation_y_map,
    }
)


@dataclass(frozen=True)
class RandAugmentPart(Part):
    """Which operations, how strong."""

    operation_BK: Tensor
    """int64 values of `Operation`, in the order of their application."""
    magnitude_BK: Tensor
    """float32: factor, bits, degrees, slope, threshold or pixels, as the operation has it; 0 for none."""
    map_BK6: Tensor
    """int64 inverse map of the geometric operations, the identity for the others."""

    def apply(self, images_BCHW: Tensor) -> Tensor:
        """The images after their K operations, each a batched call on the samples that drew it."""
        for place in range(self.operation_BK.shape[1]):
            images_BCHW = _apply_one_each(
                images_BCHW,
                self.operation_BK[:, place],
                self.magnitude_BK[:, place],
                self.map_BK6[:, place],
            )
        return images_BCHW


def draw_randaugment(step: RandAugmentStep, uniforms: Uniforms, size: tuple[int, int]) -> RandAugmentPart:
    """Operations with replacement and their magnitudes (fields 2k operation, 2k + 1 magnitude).

    A magnitude is uniform in its range. Bits are rounded down, so 4 to 7 are equally likely. A translation
    is that fraction of the side, rounded to whole pixels, halves up: floor(fraction · side + 0.5).
    """
    places = range(step.operations)
    operation_BK = np.stack([uniforms.below(2 * k, len(Operation)) for k in places], axis=1)
    unit_BK = np.stack([uniforms.unit(2 * k + 1) for k in places], axis=1)
    low, high = np.array([RANGES[operation] for operation in Operation]).T
    magnitude_BK = low[operation_BK] + unit_BK * (high - low)[operation_BK]
    _round_some(operation_BK, magnitude_BK, size)

    map_BK6 = geometry.identity_map(operation_BK.size, size).reshape(*operation_BK.shape, 6)
    for operation, inverse_maps in GEOMETRY.items():
        chosen = operation_BK == operation
        map_BK6[chosen] = inverse_maps(magnitude_BK[chosen], size)
    return RandAugmentPart(
        operation_BK=torch.from_numpy(operation_BK),
        magnitude_BK=torch.from_numpy(magnitude_BK.astype(np.float32)),
        map_BK6=torch.from_numpy(map_BK6),
    )


def _round_some(
    operation_BK: NDArray[np.int64], magnitude_BK: NDArray[np.float64], size: tuple[int, int]
) -> None:
    """Turn, in place, bits into whole bits, and fractions of a side into whole pixels."""
    height, width = size
    bits = operation_BK == Operation.POSTERIZE
    magnitude_BK[bits] = np.floor(magnitude_BK[bits])
    for operation, side in ((Operation.TRANSLATE_X, width), (Operation.TRANSLATE_Y, height)):
        moved = operation_BK == operation
        magnitude_BK[moved] = np.floor(magnitude_BK[moved] * side + 0.5)


def _apply_one_each(images_BCHW: Tensor, operation_B: Tensor, magnitude_B: Tensor, map_B6: Tensor) -> Tensor:
    """Each image after its one operation: sorted by operation, worked on in runs, put back in order."""
    order_B = operation_B.argsort(stable=True)
    counts = torch.bincount(operation_B, minlength=len(Operation)).tolist()
    images = torch.split(images_BCHW.index_select(0, order_B), counts)
    magnitudes = torch.split(magnitude_B.index_select(0, order_B), counts)
    changed = [
        kernel(images[operation], magnitudes[operation])
        for operation, kernel in COLOUR.items()
        if counts[operation]
    ]
    n_warped = sum(counts[operation] for operation in GEOMETRY)
    if n_warped:
        rows = order_B[-n_warped:]
        changed.append(geometry.warp(images_BCHW.index_select(0, rows), map_B6.index_select(0, rows)))
    return torch.cat(changed).index_select(0, order_B.argsort()) if changed else images_BCHW
