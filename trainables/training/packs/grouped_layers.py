"""Layers of several networks as one: channels side by side, lane by lane (HFTA: Wang et al., MLSys 2021)."""

# L = lanes, B = samples in the batch, C = channels of one network, H, W = height and width

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Source:
    """Where grouped layers find the weights of the pass that is being made."""

    def __init__(self) -> None:
        self.rows: Mapping[str, Tensor] = {}
        """By name, L rows of each parameter and buffer."""
        self.lanes = 0


class _Grouped(nn.Module):
    """A layer of each lane, in the place of one network's layer."""

    def __init__(self, layer: Any, name: str, source: Source) -> None:
        super().__init__()
        # In a list it is no part of this module: the layer's own weights stand for nobody's.
        self._held = [layer]
        self._prefix = f"{name}." if name else ""
        self._source = source

    @property
    def _layer(self) -> Any:
        return self._held[0]

    def _rows(self, name: str) -> Tensor | None:
        """L rows of a parameter or buffer; none where the layer has no such one."""
        return None if getattr(self._layer, name) is None else self._source.rows[self._prefix + name]

    def _flat(self, name: str) -> Tensor | None:
        rows = self._rows(name)
        return None if rows is None else rows.flatten(0, 1)


class GroupedConv2d(_Grouped):
    """Bx(LC)xHxW to as many maps of all lanes; each lane sees its own channels."""

    def forward(self, x: Tensor) -> Tensor:
        """The maps, lane by lane."""
        layer, groups = self._layer, self._source.lanes * self._layer.groups
        stride = layer.stride
        if layer.kernel_size == (1, 1) and max(stride) > 1 and layer.padding == (0, 0):
            # Picked and not strided over: see `trainables.tensors.memory_format` for what that kernel does to
            # few channels.
            x, stride = x[:, :, :: stride[0], :: stride[1]], (1, 1)
        weight = self._source.rows[f"{self._prefix}weight"].flatten(0, 1)
        bias = self._flat("bias")
        maps: Tensor = F.conv2d(x, weight, bias, stride, layer.padding, layer.dilation, groups)
        return maps


class GroupedBatchNorm2d(_Grouped):
    """Batch statistics of each lane's own channels."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalised, and in training mode counted into the running statistics."""
        layer = self._layer
        mean_L, var_L = self._rows("running_mean"), self._rows("running_var")
        if self.training and (counted := self._rows("num_batches_tracked")) is not None:
            counted.add_(1)
        return F.batch_norm(
            x,
            None if mean_L is None else mean_L.view(-1),
            None if var_L is None else var_L.view(-1),
            self._flat("weight"),
            self._flat("bias"),
            self.training or mean_L is None,
            layer.momentum,
            layer.eps,
        )


class GroupedGroupNorm(_Grouped):
    """Groups of channels within each lane."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalised."""
        layer = self._layer
        groups = self._source.lanes * layer.num_groups
        return F.group_norm(x, groups, self._flat("weight"), self._flat("bias"), layer.eps)


class GroupedLinear(_Grouped):
    """Bx(L·in) to Bx(L·out): a product of matrices for each lane, made as one."""

    def forward(self, x: Tensor) -> Tensor:
        """What the lanes' layers give, lane by lane."""
        weight, bias = self._source.rows[f"{self._prefix}weight"], self._rows("bias")
        x_LBI = x.view(len(x), self._source.lanes, -1).transpose(0, 1)
        out_LBO: Tensor = x_LBI @ weight.transpose(1, 2)
        if bias is not None:
            out_LBO = out_LBO + bias[:, None]
        return out_LBO.transpose(0, 1).flatten(1)


LAYERS: Final[Mapping[type[nn.Module], Callable[[Any, str, Source], nn.Module]]] = MappingProxyType(
    {
        nn.Conv2d: GroupedConv2d,
        nn.BatchNorm2d: GroupedBatchNorm2d,
        nn.GroupNorm: GroupedGroupNorm,
        nn.Linear: GroupedLinear,
    }
)
"""By a layer's very class: what is derived from one may compute something else."""


def can_be_grouped(layer: nn.Module) -> bool:
    """Whether a layer with weights has a grouped form."""
    if type(layer) not in LAYERS:
        return False
    if isinstance(layer, nn.Conv2d):
        return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return not isinstance(layer, nn.BatchNorm2d) or layer.momentum is not None


def channels_last(x: Tensor) -> Tensor:
    """The same images, laid out channel by channel within each pixel, as a CPU's convolutions want them."""
    return x.contiguous(memory_format=torch.channels_last)
