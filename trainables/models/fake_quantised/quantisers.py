"""What rounds weights and activations of a network in training as an int8 file does.

The scheme is that of the static files (`trainables/export/quantised.py`): weights have 7 bits, symmetric, a
scale for each output channel, so that sums do not overflow on processors without VNNI; activations have 8
bits, one scale and zero point for a tensor. Gradients pass the rounding as if it were not there, and are 0
beyond the range (Jacob et al., 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference").
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

LEVEL_OF_WEIGHTS: Final = 64
"""Integers of weights lie between minus this and this."""
LEVEL_OF_ACTIVATIONS: Final = 255
"""Integers of activations lie between 0 and this."""
FOLLOWING: Final = 0.01
"""Part of a batch's range in the moving average, as in torch.ao's `MovingAverageMinMaxObserver`."""
ONNX_VERSION: Final = 18
"""Of the operators that an exported network is written in."""
_NARROWEST: Final = 1e-8

# O = output channels


def weight_scales(weight: Tensor) -> Tensor:
    """float32 O: the step of each output channel, its largest weight by 64; 1 where all weights are 0."""
    largest_O = weight.detach().flatten(1).abs().amax(dim=1).float()
    return torch.where(largest_O > 0, largest_O / LEVEL_OF_WEIGHTS, torch.ones_like(largest_O))


def quantised_weight(weight: Tensor) -> Tensor:
    """The weights (O first) in whole multiples of `weight_scales`; what is rounded stays as it is."""
    scales_O = weight_scales(weight)
    zeros_O = torch.zeros_like(scales_O, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(
        weight, scales_O, zeros_O, 0, -LEVEL_OF_WEIGHTS, LEVEL_OF_WEIGHTS
    )


class ActivationQuantiser(nn.Module):
    """Rounds a tensor to 256 levels between the lowest and the highest value that were measured.

    The range always holds 0, so that padding is exact. In training it follows the batches as a moving
    average; in evaluation it stays.
    """

    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        """Nothing is measured yet: `measures` is to be set for some batches before the network is used."""
        super().__init__()
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.measures = False
        """While it is set, the range is widened to hold all that comes by, and nothing is rounded."""

    def forward(self, values: Tensor) -> Tensor:
        """The values rounded, in their own shape."""
        if self.measures:
            self._widen(values)
            return values
        if self.training:
            self._follow(values)
        scale = self._scale()
        return torch.fake_quantize_per_tensor_affine(
            values, scale, self._zero_point(scale), 0, LEVEL_OF_ACTIVATIONS
        )

    def constants(self) -> tuple[float, int]:
        """Scale and zero point as they are now."""
        scale = self._scale()
        return float(scale), int(self._zero_point(scale))

    @torch.no_grad()
    def _widen(self, values: Tensor) -> None:
        low, high = torch.aminmax(values.float())
        self.low.copy_(torch.minimum(self.low, low))
        self.high.copy_(torch.maximum(self.high, high))

    @torch.no_grad()
    def _follow(self, values: Tensor) -> None:
        low, high = torch.aminmax(values.float())
        self.low.lerp_(low.clamp(max=0), FOLLOWING)
        self.high.lerp_(high.clamp(min=0), FOLLOWING)

    def _scale(self) -> Tensor:
        return ((self.high - self.low) / LEVEL_OF_ACTIVATIONS).clamp(min=_NARROWEST)

    def _zero_point(self, scale: Tensor) -> Tensor:
        return torch.round(-self.low / scale).clamp(0, LEVEL_OF_ACTIVATIONS).to(torch.int32)


class OnnxQuantiser(nn.Module):
    """The same as operators of ONNX, with the range as it is: it can be exported, and not be computed."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, quantiser: ActivationQuantiser) -> None:
        super().__init__()
        scale, zero_point = quantiser.constants()
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("zero_point", torch.tensor(zero_point, dtype=torch.uint8))

    def forward(self, values: Tensor) -> Tensor:
        """QuantizeLinear and DequantizeLinear."""
        levels = torch.onnx.ops.symbolic(
            "QuantizeLinear",
            (values, self.scale, self.zero_point),
            dtype=torch.uint8,
            shape=values.shape,
            version=ONNX_VERSION,
        )
        return torch.onnx.ops.symbolic(
            "DequantizeLinear",
            (levels, self.scale, self.zero_point),
            dtype=torch.float32,
            shape=values.shape,
            version=ONNX_VERSION,
        )
