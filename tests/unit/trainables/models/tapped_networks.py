"""Small networks for tests of features by name."""

from __future__ import annotations

import functools
from typing import Any, Final

import torch
from torch import Tensor, nn

from trainables.config import ModelConfig
from trainables.models import build_model
from trainables.models.features import FeatureTap, Tapped

CLASSES: Final = 5
CPU: Final = torch.device("cpu")
RESNET: Final[dict[str, Any]] = {"name": "resnet8", "width": 4}


def built(in_channels: int = 3, **config: Any) -> nn.Module:
    """A network with the same fresh weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_model(ModelConfig.from_plain(config), n_classes=CLASSES, in_channels=in_channels)


def images(batch: int = 3, side: int = 16, channels: int = 3) -> Tensor:
    """The same noise each time."""
    return torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(1))


def tap_of(network: nn.Module, *names: str, side: int = 16, channels: int = 3, **more: Any) -> FeatureTap:
    """A tap for images of that size."""
    return FeatureTap(
        network, names, n_classes=CLASSES, input_shape=(channels, side, side), device=CPU, **more
    )


def check_compiled_features(backend: str) -> None:
    """Raises unless a compiled network gives the features, and gradients, of one that is not."""
    network, plain = built(**RESNET), built(**RESNET)
    names = ("stem", "stage1", "stage2.pre", "last", "embedding", "energy.stage2")
    tapped = Tapped(network, tap_of(network, *names))
    forward = torch.compile(tapped, dynamic=False, backend=backend, fullgraph=True)
    tap = tap_of(plain, *names)
    for batch in (4, 3, 4):
        shown = images(batch)
        logits, features = forward(shown)
        expected_logits, expected = tap.during(functools.partial(plain, shown))
        torch.testing.assert_close(logits, expected_logits, rtol=1e-4, atol=1e-4)
        for name in names:
            torch.testing.assert_close(features[name], expected[name], rtol=1e-4, atol=1e-4)
    torch.autograd.backward(logits.sum() + features["stage2.pre"].sum())
    torch.autograd.backward(expected_logits.sum() + expected["stage2.pre"].sum())
    for mine, theirs in zip(network.parameters(), plain.parameters(), strict=True):
        if theirs.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-3)
    network.eval()
    network(images())
    assert tapped._listeners._reading.read == {}
