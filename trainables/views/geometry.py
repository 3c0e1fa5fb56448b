"""Where each pixel comes from: crop, mirror, and nearest-pixel warps in whole-number arithmetic.

A warp is held as its inverse map, from output pixel to source position, in fixed point. Sines and the
like are worked out once, when the view is drawn; what is left to render is integer, so that every device
picks the same pixels. torchvision does the same sum in float32 on the device at hand: the two agree
unless the source position lies within float32 rounding of the border between two pixels.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from trainables.views.choose import choose

# B = samples, C = channels, H = height, W = width
# 6 = inverse map (xx, xy, x0, yx, yy, y0). With X = 2·column + 1 - W and Y = 2·row + 1 - H, which are twice
# the distances of a pixel's centre from the image's, the source column is
# floor((xx·X + xy·Y + x0) / 2^(FRACTION_BITS + 1)), and the source row likewise.

FRACTION_BITS = 32


def identity_map(count: int, size: tuple[int, int]) -> NDArray[np.int64]:
    """Inverse maps (count x 6) that leave images of this (height, width) as they are."""
    height, width = size
    one = 1 << FRACTION_BITS
    return np.tile(np.array([one, 0, width * one, 0, one, height * one], dtype=np.int64), (count, 1))


def rotation_map(degrees_B: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.int64]:
    """Inverse maps (B x 6) of a turn about the centre, anticlockwise; `v2.functional.rotate`."""
    angle_B = np.deg2rad(degrees_B)
    maps_B6 = identity_map(len(degrees_B), size)
    maps_B6[:, 0] = maps_B6[:, 4] = _fixed(np.cos(angle_B))
    maps_B6[:, 3] = _fixed(np.sin(angle_B))
    maps_B6[:, 1] = -maps_B6[:, 3]
    return maps_B6


def shear_x_map(slope_B: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.int64]:
    """Inverse maps (B x 6) that take row y from `slope · y` pixels further right, the top edge fixed.

    It is `v2.functional.affine(shear=[degrees(atan(slope)), 0], center=[0, 0])`, and Pillow's transform with
    (1, slope, 0, 0, 1, 0).
    """
    maps_B6 = identity_map(len(slope_B), size)
    maps_B6[:, 1] = _fixed(slope_B)
    maps_B6[:, 2] += maps_B6[:, 1] * size[0]
    return maps_B6


def shear_y_map(slope_B: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.int64]:
    """Inverse maps (B x 6) that take column x from `slope · x` pixels further down, the left edge fixed."""
    maps_B6 = identity_map(len(slope_B), size)
    maps_B6[:, 3] = _fixed(slope_B)
    maps_B6[:, 5] += maps_B6[:, 3] * size[1]
    return maps_B6


def translation_x_map(pixels_B: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.int64]:
    """Inverse maps (B x 6) of a move to the right by whole pixels."""
    maps_B6 = identity_map(len(pixels_B), size)
    maps_B6[:, 2] -= pixels_B.astype(np.int64) << (FRACTION_BITS + 1)
    return maps_B6


def translation_y_map(pixels_B: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.int64]:
    """Inverse maps (B x 6) of a move down by whole pixels."""
    maps_B6 = identity_map(len(pixels_B), size)
    maps_B6[:, 5] -= pixels_B.astype(np.int64) << (FRACTION_BITS + 1)
    return maps_B6


def warp(images_BCHW: Tensor, maps_B6: Tensor) -> Tensor:
    """Each image through its inverse map (int64), nearest pixel, black where the source is outside."""
    channels, height, width = images_BCHW.shape[1:]
    x_W = 2 * torch.arange(width, device=images_BCHW.device) + 1 - width
    y_H1 = (2 * torch.arange(height, device=images_BCHW.device) + 1 - height)[:, None]
    xx, xy, x0, yx, yy, y0 = maps_B6[:, :, None, None].unbind(1)
    column_BHW = (xx * x_W + (xy * y_H1 + x0)).bitwise_right_shift_(FRACTION_BITS + 1)
    row_BHW = (yx * x_W + (yy * y_H1 + y0)).bitwise_right_shift_(FRACTION_BITS + 1)
    # What lies outside is brought to a black frame of one pixel, laid around the image.
    framed = F.pad(images_BCHW, (1, 1, 1, 1)).flatten(2)
    place_BHW = row_BHW.clamp_(-1, height).add_(1).mul_(width + 2)
    place_BHW += column_BHW.clamp_(-1, width).add_(1)
    place_BCN = place_BHW.flatten(1)[:, None].expand(-1, channels, -1)
    return framed.gather(2, place_BCN).view(images_BCHW.shape)


def crop_and_mirror(
    images_BCHW: Tensor, *, padding: int, top_B: Tensor, left_B: Tensor, mirror_B: Tensor
) -> Tensor:
    """Pad with black, cut the original size out at (top, left), mirror left to right where asked."""
    count, channels, height, width = images_BCHW.shape
    device = images_BCHW.device
    padded = F.pad(images_BCHW, (padding, padding, padding, padding))
    # Each row of the crop is a run of `width` levels in the padded batch laid out flat: whole runs are
    # copied, which is several times as fast as picking pixels.
    rows, pitch = padded.shape[2:]
    plane_BC1 = torch.arange(count * channels, device=device).view(count, channels, 1)
    row_B1H = (top_B[:, None] + torch.arange(height, device=device))[:, None, :]
    first_BCH = (plane_BC1 * rows + row_B1H) * pitch + left_B[:, None, None]
    runs = padded.flatten().unfold(0, width, 1).index_select(0, first_BCH.flatten())
    cropped = runs.view(images_BCHW.shape)
    return choose(mirror_B[:, None], cropped.flip(-1).flatten(1), cropped.flatten(1)).view(cropped.shape)


def stretch(images_BCHW: Tensor, box_B4: Tensor) -> Tensor:
    """The boxes (int64 top, left, height, width) of the images, each brought to the size of the whole.

    Bilinear, as `v2.functional.resized_crop`: with output pixel j of a side of n pixels, the source is
    (j + 1/2) · box side / n - 1/2, held within the box. No box is larger than its output, so that with
    torchvision's antialiasing, which is on by default, the filter is the same. Weights are whole numbers of
    1 / (2 n) and sums are whole numbers; only the result is rounded, halves up.
    """
    count, channels, height, width = images_BCHW.shape
    top, left, box_height, box_width = box_B4[:, :, None].unbind(1)
    upper_BH, lower_BH, down_BH = _taps(box_height, height)
    first_BW, second_BW, right_BW = _taps(box_width, width)
    whole = torch.int32 if 4 * height * width * 255 < 2**31 else torch.int64

    # Columns first: levels of one byte are gathered several times as fast as sums of four.
    def columns_at(places_BW: Tensor) -> Tensor:
        return images_BCHW.gather(3, (left + places_BW)[:, None, None].expand_as(images_BCHW)).to(whole)

    right = right_BW[:, None, None].to(whole)
    wide = columns_at(first_BW).mul_(2 * width - right).add_(columns_at(second_BW).mul_(right))
    rows = wide.view(count * channels * height, width)
    plane_BC1 = torch.arange(count * channels, device=images_BCHW.device).view(count, channels, 1) * height

    def rows_at(places_BH: Tensor) -> Tensor:
        picked = (plane_BC1 + (top + places_BH)[:, None]).flatten()
        return rows.index_select(0, picked).view(images_BCHW.shape)

    down = down_BH[:, None, :, None].to(whole)
    total = rows_at(upper_BH).mul_(2 * height - down).add_(rows_at(lower_BH).mul_(down))
    halves_up = total.add_(2 * height * width)
    return halves_up.div_(4 * height * width, rounding_mode="trunc").to(torch.uint8)


def _taps(box_B1: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each output pixel: both source pixels in the box, and the second's weight in 1 / (2 side)."""
    twice_B = (2 * torch.arange(side, device=box_B1.device) + 1) * box_B1 - side
    twice_B = twice_B.clamp_(min=0)
    first_B = twice_B // (2 * side)
    return first_B, torch.minimum(first_B + 1, box_B1 - 1), twice_B - first_B * (2 * side)


def inside_boxes(box_B4: Tensor, size: tuple[int, int]) -> Tensor:
    """bool BxHxW: which pixels lie in the boxes (int64 left, top, right, bottom; the last two outside)."""
    height, width = size
    rows_H = torch.arange(height, device=box_B4.device)
    columns_W = torch.arange(width, device=box_B4.device)
    left, top, right, bottom = box_B4[:, :, None].unbind(1)
    in_rows_BH = (rows_H >= top) & (rows_H < bottom)
    in_columns_BW = (columns_W >= left) & (columns_W < right)
    return in_rows_BH[:, :, None] & in_columns_BW[:, None, :]


def _fixed(values_B: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.rint(values_B * 2.0**FRACTION_BITS).astype(np.int64)
