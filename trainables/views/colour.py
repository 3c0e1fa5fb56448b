"""Operations on values, with a strength per sample: formulas of torchvision.transforms.v2.functional.

Sums that torchvision takes in float32 in an order of its own (grey values, means, blurs) are whole-number
sums here, so that neither the device nor the rest of the batch can move a value by a level.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# B = samples, C = channels (1 or 3), H = height, W = width; images are uint8


def autocontrast(images_BCHW: Tensor) -> Tensor:
    """Stretch each channel of each image to 0 .. 255; a channel of one value stays."""
    values = images_BCHW.to(torch.float32)
    low = values.amin(dim=(-2, -1), keepdim=True)
    high = values.amax(dim=(-2, -1), keepdim=True)
    flat = low == high
    scale = torch.where(flat, 1.0, (high - low) * (1.0 / 255.0))
    stretched = (values - torch.where(flat, 0.0, low)) / scale
    return _levels(stretched)


def equalize(images_BCHW: Tensor) -> Tensor:
    """Flatten the histogram of each channel of each image, by Pillow's rule.

    With h the cumulative histogram, s = (pixels below the largest value) // 255: value v becomes
    (h(v - 1) + s // 2) // s, at most 255; the channel stays when s is 0.
    """
    values = images_BCHW.flatten(2).long()
    histogram = values.new_zeros((*values.shape[:2], 256), dtype=torch.int32)
    one = histogram.new_ones(1)
    histogram.scatter_add_(2, values, one.expand_as(values))
    largest = values.amax(dim=-1, keepdim=True)
    step = (values.shape[-1] - histogram.gather(2, largest)) // 255
    before = F.pad(histogram.cumsum(dim=-1)[..., :-1], (1, 0))
    table = (before + step // 2) // step.clamp(min=1)
    # The first entry is 0 by Pillow's rule: (s // 2) // s. Where s is 0, the table is not used.
    equal = table.clamp(max=255).to(torch.uint8).gather(2, values).view_as(images_BCHW)
    return torch.where(step[..., None] > 0, equal, images_BCHW)


def brightness(images_BCHW: Tensor, factor_B: Tensor) -> Tensor:
    """Blend with black: factor 0 is black, 1 the image."""
    return _levels(images_BCHW * _per_image(factor_B))


def saturation(images_BCHW: Tensor, factor_B: Tensor) -> Tensor:
    """Blend with the grey image: factor 0 is grey, 1 the image; a grey image stays."""
    if images_BCHW.shape[1] == 1:
        return images_BCHW
    return _blend(images_BCHW, _grey(images_BCHW).to(torch.float32), factor_B)


def contrast(images_BCHW: Tensor, factor_B: Tensor) -> Tensor:
    """Blend with the mean grey value of the image: factor 0 is that grey, 1 the image."""
    grey = _grey(images_BCHW)
    total = grey.sum(dim=(-3, -2, -1), keepdim=True, dtype=torch.int64)
    mean = total.to(torch.float32) / (grey.shape[-2] * grey.shape[-1])
    return _blend(images_BCHW, mean, factor_B)


def sharpness(images_BCHW: Tensor, factor_B: Tensor) -> Tensor:
    """Blend with the blurred image: factor 0 is blurred, 1 the image; a frame of one pixel stays.

    The blur is the 3 x 3 mean with weight 5 in the middle, 1 around it, rounded. Images of two rows or
    columns or fewer stay.
    """
    if min(images_BCHW.shape[-2:]) <= 2:
        return images_BCHW
    values = images_BCHW.to(torch.float32)  # whole numbers below 2²⁴: their sums are exact
    rows = values[..., :-2, :] + values[..., 1:-1, :] + values[..., 2:, :]
    box = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    middle = values[..., 1:-1, 1:-1]
    blurred = ((box + 4.0 * middle) / 13.0).round()
    output = images_BCHW.clone()
    output[..., 1:-1, 1:-1] = _levels(middle + (1.0 - _per_image(factor_B)) * (blurred - middle))
    return output


def posterize(images_BCHW: Tensor, bits_B: Tensor) -> Tensor:
    """Keep the upper bits of each value, 0 to 8 of them."""
    dropped_B = 8 - bits_B.to(torch.int64)
    mask_B = ((0xFF << dropped_B) & 0xFF).to(torch.uint8)
    return images_BCHW & _per_image(mask_B)


def solarize(images_BCHW: Tensor, threshold_B: Tensor) -> Tensor:
    """Turn values at or above the threshold, 0 to 256, into 255 minus themselves."""
    flipped = images_BCHW >= _per_image(threshold_B)
    return images_BCHW ^ (flipped.to(torch.uint8) * 255)


def _grey(images_BCHW: Tensor) -> Tensor:
    """int32 Bx1xHxW: 0.2989 R + 0.587 G + 0.114 B, rounded down; a grey image's own values."""
    if images_BCHW.shape[1] == 1:
        return images_BCHW.to(torch.int32)
    red, green, blue = images_BCHW.to(torch.int32).unbind(1)
    return ((2989 * red + 5870 * green + 1140 * blue) // 10000)[:, None]


def _blend(images_BCHW: Tensor, other: Tensor, factor_B: Tensor) -> Tensor:
    factor = _per_image(factor_B)
    return _levels(images_BCHW * factor + other * (1.0 - factor))


def _levels(values: Tensor) -> Tensor:
    """uint8 levels, rounded down as torchvision does."""
    return values.clamp(0.0, 255.0).to(torch.uint8)


def _per_image(values_B: Tensor) -> Tensor:
    return values_B[:, None, None, None]
