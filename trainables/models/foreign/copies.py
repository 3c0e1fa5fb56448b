"""A copy of a network, also of one that keeps results of a computation among its attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import TypeVar

from torch import Tensor, nn

NetworkT = TypeVar("NetworkT", bound=nn.Module)


def copied(network: NetworkT) -> NetworkT:
    """A deep copy, whose weights are its own.

    `torch.nn.utils.weight_norm` and `spectral_norm` keep the weight that they computed last as a plain
    attribute, and torch refuses to copy a tensor with a history. The copy gets its values; its own forward
    pass computes them anew.
    """
    computed = {id(value): value.detach().clone() for value in _computed(network)}
    return deepcopy(network, computed)


def _computed(network: nn.Module) -> Iterator[Tensor]:
    for module in network.modules():
        yield from _with_a_history(vars(module))


def _with_a_history(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if not value.is_leaf:
            yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _with_a_history(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _with_a_history(each)
