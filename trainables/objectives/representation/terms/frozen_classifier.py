"""The teacher's last linear layer, which judges what a student makes of an image."""

# B = samples in the batch, D = numbers in an embedding, C = classes

from __future__ import annotations

from torch import Tensor, nn

from trainables.objectives.representation.terms.distances import classified
from trainables.signals import Setting


class FrozenClassifier(nn.Module):
    """logits = weight @ embedding + bias, with the teacher's weights.

    They are buffers: no optimiser sees them, so neither gradient nor weight decay moves them. They are no
    part of the state of a course either, since its setting holds them.
    """

    def __init__(self, setting: Setting, name: str) -> None:
        """`name` is the objective's, for the error.

        Raises:
            ValueError: the setting holds no classifier.
        """
        super().__init__()
        if setting.classifier is None:
            raise ValueError(
                f"{name} judges by the teacher's last linear layer; give the setting its classifier"
            )
        self.weight_CD: Tensor
        self.bias_C: Tensor
        self.register_buffer("weight_CD", setting.classifier.weight_CD.detach().clone(), persistent=False)
        self.register_buffer("bias_C", setting.classifier.bias_C.detach().clone(), persistent=False)

    @property
    def width(self) -> int:
        """Numbers in the embedding that it takes."""
        return self.weight_CD.shape[1]

    def forward(self, embedding_BD: Tensor) -> Tensor:
        """BxC logits."""
        return classified(embedding_BD, self.weight_CD, self.bias_C)
