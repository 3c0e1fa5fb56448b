"""A network whose outputs are of more classes than the data's, or in another order."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainables.config import ClassRows
from trainables.errors import ConfigError

# B = samples, C = classes of the data, O = outputs of the network


class Aligned(nn.Module):
    """A network, and behind it a layer without weights that gives the logits of the data's classes alone.

    A softmax over these is the network's own distribution, given that one of them is the right class.
    """

    _rows_C: Tensor

    def __init__(self, network: nn.Module, classes: ClassRows) -> None:
        """Wrap a network; both share their weights."""
        super().__init__()
        self.network = network
        self.classes = classes
        self.register_buffer("_rows_C", torch.tensor(classes.rows), persistent=False)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """BxC logits, in the order of the data's classes.

        Raises:
            ConfigError: the network has another number of outputs than was said.
        """
        logits_BO: Tensor = self.network(images_BCHW)
        if logits_BO.dim() != 2 or logits_BO.shape[1] != self.classes.n_outputs:
            raise ConfigError(
                f"{self.classes.n_outputs} classes were named, and the network gives an output of shape "
                f"{tuple(logits_BO.shape)} for {len(images_BCHW)} images; name each of its outputs once, in "
                "their order, as `classes` of the teacher"
            )
        return logits_BO.index_select(1, self._rows_C)


def aligned(network: nn.Module, classes: ClassRows | None) -> nn.Module:
    """The network that gives the data's classes; the network itself where it does so already."""
    return network if classes is None else Aligned(network, classes)


def classes_of(network: nn.Module) -> ClassRows | None:
    """Where the data's classes are among a network's; none where they are the same."""
    return network.classes if isinstance(network, Aligned) else None


def n_outputs_of(network: nn.Module, n_classes: int) -> int:
    """How many outputs a network has of itself, for data of so many classes."""
    found = next((layer for layer in network.modules() if isinstance(layer, Aligned)), None)
    return n_classes if found is None else found.classes.n_outputs
