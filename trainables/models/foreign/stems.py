"""Grey images for networks that were made for colour: the first convolution, and weights of a file for it.

The weights of the three colours are summed. So the network does with a grey image what it did with the same
image in all three channels.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trainables.errors import ConfigError

_COLOURS = 3


def replace_stem(network: nn.Module, in_channels: int, name: str) -> None:
    """Makes the first convolution one for grey images; those of three channels keep theirs.

    Raises:
        ConfigError: the network cannot take images of so many channels.
    """
    if in_channels == _COLOURS:
        return
    stem = next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)
    if stem is None or stem.in_channels != _COLOURS or stem.groups != 1 or in_channels != 1:
        raise ConfigError(
            f"{name} cannot take images of {in_channels} channels, only of 3 or 1; use a network by name, or "
            "a `factory` of your own"
        )
    with torch.no_grad():
        stem.weight = nn.Parameter(_summed(stem.weight))
    stem.in_channels = 1


def for_grey(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file; weights of a first convolution for colour are summed where `own` is grey."""
    return {
        name: _summed(tensor) if name in own and _is_for_grey(tensor, own[name]) else tensor
        for name, tensor in tensors.items()
    }


def _is_for_grey(tensor: Tensor, own: Tensor) -> bool:
    """Whether both are kernels that differ in this alone: one takes colour, the other grey images."""
    there, here = tuple(tensor.shape), tuple(own.shape)
    return len(there) == len(here) == 4 and there == (here[0], _COLOURS, *here[2:]) and here[1] == 1


def _summed(weight: Tensor) -> Tensor:
    return weight.sum(dim=1, keepdim=True)
