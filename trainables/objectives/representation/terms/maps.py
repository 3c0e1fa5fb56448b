"""Feature maps of two networks: their shapes, a common size, and their distance."""

# B = samples in the batch, C = channels, D = numbers in an embedding, H, W = height and width

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.config.objective_base import PRE
from trainables.errors import TrialFailed

Shape = tuple[int, int, int]
"""Channels, height, width."""


def map_shape(shapes: Mapping[str, tuple[int, ...]], name: str, *, whose: str, objective: str) -> Shape:
    """The shape of a sample's feature map of that name.

    Raises:
        TrialFailed: the network has no such feature, or one that is no map.
    """
    shape = shapes.get(name)
    if shape is None or len(shape) != 3:
        found = "none" if shape is None else "x".join(map(str, shape)) + " numbers a sample, which is no map"
        instead = ", `teacher_maps: post` (the map after the activation)" if name.endswith(PRE) else ""
        raise TrialFailed(
            f"{objective} compares feature maps, channels x height x width, and asks for {name!r} of the "
            f"{whose}; found {found}; take a {whose} that has this map (a convolutional one){instead}, or an "
            "objective of embeddings (fitnet with `hint: embedding`, rkd, pkt, crd, simreg) or of logits "
            "(kd, dkd, dist)"
        )
    return shape[0], shape[1], shape[2]


def vector_width(shapes: Mapping[str, tuple[int, ...]], name: str, *, whose: str, objective: str) -> int:
    """The numbers in a sample's embedding.

    Raises:
        TrialFailed: the network has no such feature, or one that is not a vector.
    """
    shape = shapes.get(name)
    if shape is None or len(shape) != 1:
        found = "none" if shape is None else "x".join(map(str, shape)) + " numbers a sample"
        raise TrialFailed(
            f"{objective} compares vectors and asks for {name!r} of the {whose}; found {found}; take a "
            f"{whose} that ends in a linear layer"
        )
    return shape[0]


def pooled_to(map_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """The map averaged over equal parts to that height and width; itself where it has them."""
    return map_BCHW if tuple(map_BCHW.shape[-2:]) == size else F.adaptive_avg_pool2d(map_BCHW, size)


def nearest_to(map_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """The map resized to that height and width, each position the nearest's; itself where it has them."""
    return map_BCHW if tuple(map_BCHW.shape[-2:]) == size else F.interpolate(map_BCHW, size, mode="nearest")


def mean_square(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean over all elements of (student - teacher)², at least in fp32; no gradient to the teacher.

    Raises:
        ValueError: they differ in shape.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"features {tuple(student.shape)} of the student and {tuple(teacher.shape)} of the teacher "
            "differ in shape; bring the one to the other's"
        )
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    return F.mse_loss(student.to(dtype), teacher.detach().to(dtype))
