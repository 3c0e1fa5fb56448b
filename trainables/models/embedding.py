"""The penultimate embedding of a network: what its linear classifier is given."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from torch import Tensor, nn

from trainables.errors import CacheError
from trainables.models.cosine import CosineClassifier

# B = rows, D = numbers in an embedding


def classifier_of(module: nn.Module, n_classes: int) -> nn.Linear | CosineClassifier:
    """The last linear or cosine layer with one output per class, as the network lists its layers.

    Raises:
        CacheError: there is none.
    """
    layers = [
        layer
        for layer in module.modules()
        if isinstance(layer, nn.Linear | CosineClassifier) and len(layer.weight) == n_classes
    ]
    if not layers:
        raise CacheError(
            f"the teacher ({type(module).__name__}) has no linear layer with {n_classes} outputs, so nothing "
            "is known to be its embedding; set cache.embedding to false, or use a teacher with such a layer"
        )
    return layers[-1]


def embedding_width_of(module: nn.Module, n_classes: int) -> int:
    """Numbers in an embedding of a network.

    Raises:
        CacheError: it has no linear classifier.
    """
    return classifier_of(module, n_classes).weight.shape[1]


class EmbeddingTap:
    """Context manager in which a network is run once; afterwards it tells what the classifier was given."""

    def __init__(self, module: nn.Module, n_classes: int) -> None:
        """Find the classifier.

        Raises:
            CacheError: there is none.
        """
        self._classifier = classifier_of(module, n_classes)
        self._given: list[Tensor] = []

    def __enter__(self) -> Self:
        self._given = []
        self._handle = self._classifier.register_forward_pre_hook(
            lambda _layer, inputs: self._given.append(inputs[0])
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.remove()

    def taken(self, n_rows: int) -> Tensor:
        """BxD float32 embeddings of the rows that went through, on the CPU.

        Raises:
            CacheError: the classifier did not run once on one vector per row.
        """
        shapes = [tuple(given.shape) for given in self._given]
        if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][0] != n_rows:
            raise CacheError(
                f"the teacher's classifier was given inputs of shapes {shapes} for {n_rows} images, not "
                "one vector for each; set cache.embedding to false"
            )
        return self._given[0].float().cpu()
