"""How good networks that were trained together are, each alone and all as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from torch import nn

from trainables.config import Combine
from trainables.models.foreign.ensemble import Ensemble

ENSEMBLE: Final = "ensemble"
PEER: Final = "peer"


def together(networks: Sequence[nn.Module]) -> dict[str, nn.Module]:
    """By name the peers of the first network, `peer1` and so on, and all networks as one.

    The ensemble's answer is the mean of their probabilities.
    """
    shares = [1 / len(networks)] * len(networks)
    device = next(networks[0].parameters()).device
    peers = {f"{PEER}{number}": peer for number, peer in enumerate(networks[1:], start=1)}
    return {**peers, ENSEMBLE: Ensemble(networks, shares, Combine.PROBABILITIES).to(device)}
