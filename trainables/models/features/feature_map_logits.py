"""A student's classifier at each position of its last feature map, read off during its forward passes."""

# B = samples, D = channels of the feature map, C = classes, H, W = height and width of the map

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.errors import TrialFailed
from trainables.models.modes import evaluating

_PROBES = 2
"""Images of the forward pass that finds the feature map."""


class DenseLogits:
    """Listens to a network that averages its last feature map before one linear layer.

    The network must be called as it is, not in a compiled form.
    """

    def __init__(self, model: nn.Module, *, input_shape: tuple[int, int, int], device: torch.device) -> None:
        """`input_shape` is (channels, height, width) of an image; the model is on the device.

        Raises:
            TrialFailed: the network has no such feature map.
        """
        linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
        images_BCHW = torch.zeros(_PROBES, *input_shape, device=device)
        found = _find_map(model, linears[-1], images_BCHW) if linears else None
        if found is None:
            raise TrialFailed(
                "this objective needs a student that averages its last feature map before one linear layer, "
                f"and {type(model).__name__} does not; choose a convolutional one"
            )
        self._classifier = linears[-1]
        self._module, self._is_input = found

    def during(self, call: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        """What a call of the network gives, and BxCxHxW logits of its map, in fp32 and without gradient."""
        maps: list[Tensor] = []
        if self._is_input:
            handle = self._module.register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0]))
        else:
            handle = self._module.register_forward_hook(lambda _, _inputs, output: maps.append(output))
        try:
            logits_BC = call()
        finally:
            handle.remove()
        with torch.no_grad(), torch.autocast(logits_BC.device.type, enabled=False):
            map_BHWD = maps[-1].detach().float().permute(0, 2, 3, 1)
            dense_BHWC = F.linear(map_BHWD, self._classifier.weight, self._classifier.bias)
        return logits_BC, dense_BHWC.permute(0, 3, 1, 2)


def _find_map(model: nn.Module, classifier: nn.Linear, images_BCHW: Tensor) -> tuple[nn.Module, bool] | None:
    """Where the last feature map can be had: a module, and whether it is its input or its output."""
    seen: list[tuple[nn.Module, bool, Tensor]] = []
    embeddings_BD: list[Tensor] = []

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if module is classifier:
            embeddings_BD.append(inputs[0])
        for is_input, value in ((True, inputs[0] if inputs else None), (False, output)):
            if isinstance(value, Tensor) and value.dim() == 4 and value.shape[1] == classifier.in_features:
                seen.append((module, is_input, value))

    leaves = [module for module in model.modules() if next(module.children(), None) is None]
    handles = [leaf.register_forward_hook(note) for leaf in leaves]
    try:
        with evaluating(model), torch.no_grad():
            model(images_BCHW)
    finally:
        for handle in handles:
            handle.remove()
    for module, is_input, map_BDHW in reversed(seen):
        has_positions = map_BDHW.shape[2:].numel() > 1  # else it is the average already
        if has_positions and _same(map_BDHW.mean(dim=(2, 3)), embeddings_BD):
            return module, is_input
    return None


def _same(average_BD: Tensor, embeddings_BD: list[Tensor]) -> bool:
    found = embeddings_BD[-1] if embeddings_BD else None
    return (
        found is not None
        and found.shape == average_BD.shape
        and torch.allclose(average_BD, found, rtol=1e-3, atol=1e-5)
    )
