"""The penultimate embedding of a network: what its last linear or cosine classifier is given."""

from __future__ import annotations

from torch import nn

from trainables.errors import CacheError, TrialFailed
from trainables.models.cosine import CosineClassifier


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
