"""The operations of RandAugment and TrivialAugment: their numbers, and a part that applies drawn ones."""

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

from trainables.views import colour, geometry
from trainables.views.params import Frame, StepParams

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
class OperationsParams(StepParams):
    """Which operations, how strong."""

    operation_BK: Tensor
    """int64 values of `Operation`, in the order of their application."""
    magnitude_BK: Tensor
    """float32: factor, bits, degrees, slope, threshold or pixels, as the operation has it; 0 for none."""
    map_BK6: Tensor
    """int64 inverse map of the geometric operations, the identity for the others."""

    @classmethod
    def of(
        cls, operation_BK: NDArray[np.int64], magnitude_BK: NDArray[np.float64], frame: Frame
    ) -> OperationsParams:
        """The part of these operations and magnitudes, with the inverse maps worked out."""
        size = (frame.height, frame.width)
        map_BK6 = geometry.identity_map(operation_BK.size, size).reshape(*operation_BK.shape, 6)
        for operation, inverse_maps in GEOMETRY.items():
            chosen = operation_BK == operation
            map_BK6[chosen] = inverse_maps(magnitude_BK[chosen], size)
        return cls(
            operation_BK=torch.from_numpy(operation_BK),
            magnitude_BK=torch.from_numpy(magnitude_BK.astype(np.float32)),
            map_BK6=torch.from_numpy(map_BK6),
        )

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
