"""A network that was trained on images of another normalisation than those that it is shown here."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainables.config import Normalisation
from trainables.errors import ConfigError

# B = samples, C = channels, H = height, W = width


class Renormalised(nn.Module):
    """A network behind a layer that brings images from the data's normalisation to the network's own.

    x' = (x * data_std + data_mean - mean) / std in each channel. The layer has no weights.
    """

    _scale_C11: Tensor
    _shift_C11: Tensor

    def __init__(
        self, network: nn.Module, own: Normalisation, *, data_mean: Sequence[float], data_std: Sequence[float]
    ) -> None:
        """Wrap a network; both share their weights."""
        super().__init__()
        self.network = network
        self.normalisation = own
        channels = list(zip(data_mean, data_std, own.mean, own.std, strict=True))
        scale_C11 = torch.tensor([was / std for _, was, _, std in channels])[:, None, None]
        shift_C11 = torch.tensor([(was - mean) / std for was, _, mean, std in channels])[:, None, None]
        self.register_buffer("_scale_C11", scale_C11, persistent=False)
        self.register_buffer("_shift_C11", shift_C11, persistent=False)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """What the network gives for images that are normalised as the data's."""
        logits: Tensor = self.network(images_BCHW * self._scale_C11 + self._shift_C11)
        return logits


def renormalised(
    network: nn.Module,
    own: Normalisation | None,
    *,
    data_mean: Sequence[float],
    data_std: Sequence[float],
) -> nn.Module:
    """The network for images that are normalised as the data's; the network itself where that is its own.

    Raises:
        ConfigError: the numbers are of another number of channels than the images have.
    """
    if own is None or (own.mean, own.std) == (tuple(data_mean), tuple(data_std)):
        return network
    if len(own.mean) != len(data_mean):
        raise ConfigError(
            f"the teacher's normalisation has {len(own.mean)} values in `mean` and in `std`; the images have "
            f"{len(data_mean)} channels: give one value per channel"
        )
    return Renormalised(network, own, data_mean=data_mean, data_std=data_std)


def normalisation_of(network: nn.Module) -> Normalisation | None:
    """The network's own normalisation; none where it is the data's."""
    found = next((layer for layer in network.modules() if isinstance(layer, Renormalised)), None)
    return None if found is None else found.normalisation
