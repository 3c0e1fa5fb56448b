"""A student's embedding: what its cosine classifier is given during a forward pass, with gradient."""

# B = samples, D = numbers in the embedding

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from trainables.errors import TrialFailed
from trainables.models.cosine import CosineClassifier
from trainables.tensors import at_least_fp32


class EmbeddingTap:
    """Listens to the cosine classifier of a network, which must not be called in a compiled form."""

    def __init__(self, model: nn.Module) -> None:
        """Find the classifier.

        Raises:
            TrialFailed: the network has none.
        """
        heads = [module for module in model.modules() if isinstance(module, CosineClassifier)]
        if not heads:
            raise TrialFailed(
                "this objective needs a student with a cosine head as wide as the teacher's embedding; set "
                "student.cosine_head"
            )
        self._head = heads[-1]

    def during(self, call: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        """What a call of the network gives, and the BxD embedding in it, at least in fp32."""
        given: list[Tensor] = []
        handle = self._head.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
        try:
            logits_BC = call()
        finally:
            handle.remove()
        return logits_BC, at_least_fp32(given[-1])
