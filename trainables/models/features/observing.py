"""What the parts of a network are given and give, seen in one forward pass of a copy of it."""

# B = samples, C = channels, H, W = height and width

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from trainables.models.foreign.copies import copied

_PROBES: Final = 2
"""Images of the forward pass."""


@dataclass(frozen=True)
class Seen:
    """A tensor as it was when it was seen."""

    tensor: Tensor
    version: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole batch."""
        return tuple(self.tensor.shape)

    @property
    def is_overwritten(self) -> bool:
        """Whether a later part has changed it in place."""
        return self.tensor._version != self.version


@dataclass(frozen=True)
class Call:
    """One call of one part of a network."""

    path: str
    part: nn.Module
    began: int
    """Its place among the beginnings and ends of all calls."""
    ended: int
    given: Seen | None
    """None where it is given no tensor."""
    output: Seen | None
    """None where it gives none."""


def tensor_in(value: Any) -> Tensor | None:
    """A tensor itself, or the first of a tuple or list; none where there is no such tensor."""
    # Not `tuple | list`: the compiler of PyTorch 2.9 traces no union of types.
    if (isinstance(value, tuple) or isinstance(value, list)) and value:  # noqa: SIM101
        value = value[0]
    return value if isinstance(value, Tensor) else None


def given_tensor(args: tuple[Any, ...], named: Mapping[str, Any]) -> Tensor | None:
    """What a part is given first."""
    return next((value for value in (*args, *named.values()) if isinstance(value, Tensor)), None)


def observed(
    network: nn.Module, *, input_shape: tuple[int, int, int], device: torch.device
) -> Sequence[Call]:
    """The calls of a copy in evaluation mode, in the order in which they end; the last is of the network.

    The network, its buffers and the random state stay as they are.
    """
    # Tensors of inference mode do not tell whether they were overwritten.
    with torch.inference_mode(mode=False), torch.no_grad():
        return _calls_of(copied(network).eval(), torch.zeros(_PROBES, *input_shape, device=device))


def _calls_of(watched: nn.Module, images_BCHW: Tensor) -> Sequence[Call]:
    calls: list[Call] = []
    begun: list[tuple[int, Seen | None]] = []
    moments = itertools.count()
    paths = {id(part): path for path, part in watched.named_modules()}

    def begin(_part: nn.Module, args: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        begun.append((next(moments), _seen(given_tensor(args, named))))

    def end(part: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        began, given = begun.pop()
        seen = _seen(tensor_in(output))
        calls.append(Call(paths[id(part)], part, began, next(moments), given, seen))

    for part in watched.modules():
        part.register_forward_pre_hook(begin, with_kwargs=True)
        part.register_forward_hook(end)
    with torch.random.fork_rng(devices=[images_BCHW.device] if images_BCHW.is_cuda else []):
        watched(images_BCHW)
    return calls


def _seen(tensor: Tensor | None) -> Seen | None:
    return None if tensor is None else Seen(tensor, tensor._version)
