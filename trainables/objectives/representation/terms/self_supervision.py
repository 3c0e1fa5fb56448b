"""SSKD's head on an embedding, and what it learns on a teacher (Xu et al., ECCV 2020, arXiv 2006.07114)."""

# B = images, R = 4 B rows of all turns, A = 3 B rows of turned images, N = B rows of upright ones
# D = numbers in an embedding

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from trainables.objectives.representation.terms.heads import head_output
from trainables.objectives.representation.terms.rotations import cosines_AN, images_of_turned


class SsHead(nn.Module):
    """Linear(d, d)-ReLU-Linear(d, d): 2 (d² + d) parameters, as wide as the embedding."""

    def __init__(self, width: int) -> None:
        """`width` is that of the network's embedding."""
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, embedding_BD: Tensor) -> Tensor:
        """BxD, outside autocast, in the precision of the parameters."""
        return head_output(self.layers, embedding_BD)


def own_image_loss(head_RD: Tensor) -> Tensor:
    """What SSKD's head on a frozen teacher learns by: each turned image is to find its own upright one.

    The cross-entropy of `cosines_AN` of the head's output, without temperature, with the row's own image as
    the class; mean over turned rows. Rows are in the order of `rotations`.
    """
    cosines = cosines_AN(head_RD)
    return F.cross_entropy(cosines, images_of_turned(cosines.shape[1], cosines.device))
