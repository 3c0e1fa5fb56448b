"""The penultimate embedding of a network: what its last linear or cosine classifier is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from trainables.errors import CacheError, TrialFailed
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


def cosine_head_of(model: nn.Module) -> CosineClassifier:
    """A student's last cosine classifier.

    Raises:
        TrialFailed: the network has none.
    """
    heads = [module for module in model.modules() if isinstance(module, CosineClassifier)]
    if not heads:
        raise TrialFailed(
            "this objective needs a student with a cosine head as wide as the teacher's embedding; set "
            "student.cosine_head"
        )
    return heads[-1]


class EmbeddingRecorder:
    """Records what a classifier is given while its network, which must not be compiled, is called."""

    def __init__(self, classifier: nn.Module) -> None:
        """Nothing is recorded until `during`."""
        self._classifier = classifier

    def during(self, call: Callable[[], Tensor]) -> tuple[Tensor, list[Tensor]]:
        """What a call of the network gives, and each input of the classifier in it, with its gradient."""
        inputs: list[Tensor] = []
        handle = self._classifier.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
        try:
            logits_BC = call()
        finally:
            handle.remove()
        return logits_BC, inputs


def embedding_of_rows(inputs: Sequence[Tensor], n_rows: int) -> Tensor:
    """BxD float32 embeddings of the rows that went through, on the CPU.

    Raises:
        CacheError: the classifier did not run once on one vector per row.
    """
    shapes = [tuple(given.shape) for given in inputs]
    if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][0] != n_rows:
        raise CacheError(
            f"the teacher's classifier was given inputs of shapes {shapes} for {n_rows} images, not "
            "one vector for each; set cache.embedding to false"
        )
    return inputs[0].float().cpu()
