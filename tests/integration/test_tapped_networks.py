"""Features of networks that PyTorch's real compiler compiles, or that ranks share: real processes, no Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.integration.ranks import keep, run_ranks
from tests.unit.trainables.models.tapped_networks import (
    RESNET,
    built,
    check_compiled_features,
    images,
    tap_of,
)
from trainables.models.features import Tapped
from trainables.slots.compiled_students import find_compiler
from trainables.training.ranks import DdpTeam


@pytest.mark.slow
@pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler here")
def test_features_come_out_of_a_compiled_forward_pass() -> None:
    check_compiled_features("inductor")


def steps_of_a_rank(folder: Path, of_features: bool) -> None:
    """Three steps on half of six images, of a loss that is about features, with or without the logits."""
    team = DdpTeam()
    network = built(**RESNET).eval()  # without batch statistics, which differ between halves
    forward = team.wrap(network, Tapped(network, tap_of(network, "stage1", "embedding")))
    gradients = []
    for _ in range(3):
        network.zero_grad()
        torch.autograd.backward(loss_of(forward(torch.tensor_split(images(6), 2)[team.rank]), of_features))
        gradients.append(
            {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
        )
    keep(folder, gradients)


def loss_of(answer: Any, of_features: bool) -> Tensor:
    logits, features = answer
    loss: Tensor = features["stage1"].square().mean() + features["embedding"].square().mean()
    return loss if of_features else loss + logits.square().mean()


@pytest.mark.parametrize("of_features", [False, True], ids=["with the logits", "of features alone"])
def test_two_ranks_have_the_gradient_of_a_loss_about_features(tmp_path: Path, of_features: bool) -> None:
    ranks = run_ranks(steps_of_a_rank, 2, tmp_path, of_features)
    network = built(**RESNET).eval()
    tapped = Tapped(network, tap_of(network, "stage1", "embedding"))
    torch.autograd.backward(loss_of(tapped(images(6)), of_features))
    alone = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    assert ("fc.weight" in alone) != of_features
    for step in range(3):
        for name, gradient in alone.items():
            torch.testing.assert_close(ranks[0][step][name], gradient, rtol=1e-4, atol=1e-6)
            assert torch.equal(ranks[0][step][name], ranks[1][step][name])
