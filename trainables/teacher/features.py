"""What is taken from within a teacher's network: features by name, and the weights of its last layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from trainables.errors import CacheError
from trainables.models.cosine import CosineClassifier
from trainables.models.embedding import EmbeddingRecorder, classifier_of, embedding_of_rows
from trainables.models.foreign.aligned import Aligned, n_outputs_of
from trainables.signals import TeacherClassifier

# B = images, C = channels (of maps) or classes, D = numbers in an embedding, H, W = height and width

ENERGY: Final = "energy."
"""Before the name of a map: the mean over its channels of the squares, BxHxW."""


class TeacherFeatures:
    """Reads named features off each call of a network."""

    def __init__(self, module: nn.Module, names: Sequence[str], *, n_classes: int) -> None:
        """`n_classes` are those of the data.

        Raises:
            CacheError: the network has no such feature.
        """
        self.names = tuple(names)
        self._mapped = tuple(dict.fromkeys(name.removeprefix(ENERGY) for name in names))
        self._tap = _PathTap(module, self._mapped, n_outputs_of(module, n_classes))

    def during(self, call: Callable[[], Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """What a call gives, and the features of its images by name, in fp32 on the network's device.

        Raises:
            CacheError: a feature has not one row for each image.
        """
        logits_BC, tapped = self._tap.during(call)
        return logits_BC, {name: _feature(tapped, name) for name in self.names}


def energy(map_BCHW: Tensor) -> Tensor:
    """BxHxW: the mean over channels of the squares, in fp32 (what attention transfer compares)."""
    return map_BCHW.float().square().mean(dim=1)


def teacher_classifier(module: nn.Module, n_classes: int) -> TeacherClassifier:
    """Weights and bias of the layer that gives the logits of the data's classes, on the CPU.

    Raises:
        CacheError: the network has no linear layer with an output for each of its classes.
    """
    layer = classifier_of(module, n_outputs_of(module, n_classes))
    if isinstance(layer, CosineClassifier):
        raise CacheError(
            "the teacher's last layer is a cosine classifier, whose logits are no linear function of the "
            "embedding; an objective of the space needs the weights of a linear one"
        )
    weight_OD = layer.weight.detach().float().cpu()
    bias_O = torch.zeros(len(weight_OD)) if layer.bias is None else layer.bias.detach().float().cpu()
    order = next((part for part in module.modules() if isinstance(part, Aligned)), None)
    rows_C = torch.arange(len(weight_OD)) if order is None else torch.tensor(order.classes.rows)
    return TeacherClassifier(weight_OD[rows_C], bias_O[rows_C])


def _feature(tapped: Mapping[str, Tensor], name: str) -> Tensor:
    given = tapped[name.removeprefix(ENERGY)]
    return energy(given) if name.startswith(ENERGY) else given.float()


class _PathTap:
    """Until there is a tap of stages by name: the embedding, and outputs of parts by their paths."""

    def __init__(self, module: nn.Module, names: Sequence[str], n_outputs: int) -> None:
        self._embedding = (
            EmbeddingRecorder(classifier_of(module, n_outputs)) if "embedding" in names else None
        )
        self._parts = {name: _part(module, name) for name in names if name != "embedding"}

    def during(self, call: Callable[[], Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        found: dict[str, Tensor] = {}
        handles = [
            part.register_forward_hook(lambda _m, _i, output, name=name: found.update({name: output}))
            for name, part in self._parts.items()
        ]
        try:
            if self._embedding is None:
                return call(), found
            logits_BC, inputs = self._embedding.during(call)
            found["embedding"] = embedding_of_rows(inputs, len(logits_BC))
            return logits_BC, found
        finally:
            for handle in handles:
                handle.remove()


def _part(module: nn.Module, path: str) -> nn.Module:
    try:
        return module.get_submodule(path)
    except AttributeError as error:
        raise CacheError(f"the teacher has no feature {path!r}") from error
