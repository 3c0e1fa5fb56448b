"""Square images: the shorter side to the wanted length, or to a larger one, then the centre; or stretched."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

EIGHT_BIT_MODES: Final = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
_OTHER_COLOURS: Final = frozenset({"LAB", "HSV", "La", "RGBa"})

Resize = int | Literal["stretch"] | None
"""`data.resize`: to what the shorter side is scaled before the middle is cut; none: to the wanted side."""

# N = samples, C = channels, H, W = height and width, S = wanted side


def eight_bit(image: Image.Image, mode: str) -> Image.Image:
    """The image in another mode of 8 bits, such as L or RGB; transparency is dropped.

    Raises:
        ValueError: it has more than 8 bits per channel, which Pillow would clip at 255 without a word.
    """
    require_eight_bits(image.mode)
    return image.convert(mode)


def require_eight_bits(mode: str) -> None:
    """Refuse images of a mode of more than 8 bits per channel, or of colours that Pillow cannot convert.

    Raises:
        ValueError: this is one.
    """
    if mode in _OTHER_COLOURS:
        raise ValueError(f"mode {mode} has colours that cannot be brought to RGB; convert it to RGB")
    if mode not in EIGHT_BIT_MODES:
        raise ValueError(f"mode {mode} has more than 8 bits per channel; convert it to 8 bits")


def squared(image: Image.Image, side: int, resize: Resize = None) -> Image.Image:
    """The image scaled (antialiased bilinear) as `resize` says, centre cut to a square of `side` pixels.

    The same pixels as torchvision's Resize(resize or side) and CenterCrop(side) give for a Pillow image.
    """
    size = scaled(image.size, side, resize)
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    return centred(image, side)


def scaled(size: tuple[int, int], side: int, resize: Resize = None) -> tuple[int, int]:
    """Width and height of which the shorter one is `side` pixels, and the other as much larger as before.

    Or the shorter one is `resize` pixels; or both are `side`, where it is "stretch".
    """
    if resize == "stretch":
        return side, side
    wanted, shorter = resize or side, min(size)
    return wanted * size[0] // shorter, wanted * size[1] // shorter


def centred(image: Image.Image, side: int) -> Image.Image:
    """The square of `side` pixels in the middle of an image."""
    left = round((image.width - side) / 2)
    top = round((image.height - side) / 2)
    return image.crop((left, top, left + side, top + side))


def resized(images_NCHW: Tensor, side: int, resize: Resize = None) -> Tensor:
    """uint8 NxCxSxS: every image as `squared` makes it, each channel on its own.

    Pillow's 8-bit resampling is integer arithmetic, the same on every CPU; torch's depends on the CPU's
    vector instructions by a grey level, and the digests of one data set on two nodes would differ.
    """
    n_images, n_channels, height, width = images_NCHW.shape
    if (height, width) == scaled((height, width), side, resize) == (side, side):
        return images_NCHW
    if n_channels == 3:
        pictures = images_NCHW.permute(0, 2, 3, 1).contiguous().numpy()
    else:  # Pillow has no mode of 8 bits for every number of channels, and weighs colours by alpha
        pictures = images_NCHW.reshape(-1, height, width).numpy()
    result = np.stack([np.asarray(squared(Image.fromarray(picture), side, resize)) for picture in pictures])
    if n_channels == 3:
        return torch.from_numpy(result).permute(0, 3, 1, 2).contiguous()
    return torch.from_numpy(result).reshape(n_images, n_channels, side, side)
