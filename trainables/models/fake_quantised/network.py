"""A network that computes as its int8 file will, and can be trained meanwhile."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.checkpoint_header import file_metadata
from trainables.errors import CheckpointError
from trainables.foreign_files import foreign_file
from trainables.models.fake_quantised.points import POINTS, Points
from trainables.models.fake_quantised.quantisers import (
    ActivationQuantiser,
    OnnxQuantiser,
    quantised_weight,
)
from trainables.models.foreign.copies import copied
from trainables.models.modes import evaluating
from trainables.models.weights import load_weights

INPUT: Final = "input_quantiser"
OUTPUT: Final = "output_quantiser"


class _QuantisedConv2d(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        product: Tensor = self._conv_forward(input, quantised_weight(self.weight), self.bias)
        return product


class _QuantisedLinear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, quantised_weight(self.weight), self.bias)


_FORMS: Final = MappingProxyType({nn.Conv2d: _QuantisedConv2d, nn.Linear: _QuantisedLinear})
_PLAIN: Final = MappingProxyType({form: plain for plain, form in _FORMS.items()})


def fake_quantise(network: nn.Module, points: Points) -> None:
    """Have a network compute as if weights and activations were integers at these points.

    Its modules and the names of its weights stay; ranges are buffers beside them. Batch norm keeps its
    statistics from now on, in training too: it is folded into the convolution before it in the int8 file
    (as ONNX Runtime's preparation does), which is the same function as long as they do not depend on the
    batch. Weights need not be folded here: a scale for each output channel is that of the folded weights,
    times the factor that the folding multiplies them by.
    """
    device = next((weight.device for weight in network.parameters()), torch.device("cpu"))
    modules = dict(network.named_modules())
    for path in points.layers:
        # The module itself stays, with its hooks: others may hold it, as those who read features do.
        modules[path].__class__ = _FORMS[type(modules[path])]
    for path in points.inputs:
        modules[path].add_module(INPUT, ActivationQuantiser().to(device))
        modules[path].register_forward_pre_hook(_quantise_input)
    for path in points.outputs:
        modules[path].add_module(OUTPUT, ActivationQuantiser().to(device))
        modules[path].register_forward_hook(_quantise_output)
    for module in modules.values():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.register_forward_pre_hook(_keep_statistics)


def load_fake_quantised(network: nn.Module, path: Path) -> None:
    """Make of a network what the file of its weights says that it was when they were kept.

    Raises:
        CheckpointError: the file does not say so, or does not fit.
    """
    with foreign_file(lambda why: CheckpointError(f"{path} does not say where it is quantised: {why}")):
        points = Points.model_validate_json(file_metadata(path)[POINTS])
    fake_quantise(network, points)
    load_weights(network, path)


def measure_ranges(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Let quantisers measure what comes by on these images (float32 BxCxHxW), before anything is trained."""
    quantisers = [part for part in network.modules() if isinstance(part, ActivationQuantiser)]
    for quantiser in quantisers:
        quantiser.measures = True
    try:
        with evaluating(network), torch.no_grad():
            for images in batches:
                network(images)
    finally:
        for quantiser in quantisers:
            quantiser.measures = False


def exportable(network: nn.Module) -> nn.Module:
    """A copy on the CPU whose weights are rounded, and whose quantisers are operators of ONNX."""
    copy = copied(network).cpu().eval()
    with torch.no_grad():
        for module in list(copy.modules()):
            if isinstance(module, _QuantisedConv2d | _QuantisedLinear):
                module.weight.copy_(quantised_weight(module.weight))
                module.__class__ = _PLAIN[type(module)]
            for name, child in list(module.named_children()):
                if isinstance(child, ActivationQuantiser):
                    setattr(module, name, OnnxQuantiser(child))
    return copy


def _quantise_input(layer: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    quantiser: nn.Module = layer.get_submodule(INPUT)
    return (quantiser(given[0]), *given[1:])


def _quantise_output(layer: nn.Module, _given: tuple[Any, ...], output: Tensor) -> Tensor:
    quantised: Tensor = layer.get_submodule(OUTPUT)(output)
    return quantised


def _keep_statistics(norm: nn.Module, _given: tuple[Any, ...]) -> None:
    norm.training = False
