"""Networks that torch refuses to copy are copied all the same: checks, mean of weights, precision, export."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.unit.trainables.training.small_courses import CPU, SHORT, same_weights, small_workbench, weights_of
from trainables.config import CeConfig
from trainables.export.formats import check_export
from trainables.models import check_logits
from trainables.models.foreign.copies import copied
from trainables.training import precision
from trainables.training.course import Course
from trainables.training.loop import train


class Remembering(nn.Module):
    """Keeps what it computed last, in places of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 3)
        self.seen: dict[str, list[Tensor]] = {}

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(images.flatten(1))
        self.seen = {"last": [logits]}
        return logits


def weight_normed() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch: the newer form is in parametrizations
        layer = nn.utils.weight_norm(nn.Linear(64, 3))
    return nn.Sequential(nn.Flatten(), layer)


def spectral_normed() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.utils.spectral_norm(nn.Linear(64, 3)))


def parametrized() -> nn.Module:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(64, 3))
    return nn.Sequential(nn.Flatten(), layer)


def remembering() -> nn.Module:
    network = Remembering()
    network(torch.rand(2, 1, 8, 8))
    return network


NETWORKS = pytest.mark.parametrize("build", [weight_normed, spectral_normed, parametrized, remembering])


@NETWORKS
def test_a_copy_answers_alike_and_has_weights_of_its_own(build: Callable[[], nn.Module]) -> None:
    network, images = build(), torch.rand(2, 1, 8, 8)
    copy = copied(network).eval()
    assert torch.equal(copy(images), network.eval()(images))
    before = weights_of(network)
    with torch.no_grad():
        for weights in copy.parameters():
            weights.add_(1)
    assert same_weights(weights_of(network), before)
    assert not torch.equal(copy(images), network(images))


@NETWORKS
def test_such_a_student_is_checked_and_trained_with_a_mean_of_its_weights(
    build: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    network = build()
    check_logits(network, torch.rand(4, 1, 8, 8), n_classes=3)
    assert precision.by_table(network, CPU, (1, 8, 8)).precision == "fp32"
    assert precision._runs_in_bf16(network, CPU, (1, 8, 8))
    course = Course(network, CeConfig(), SHORT.with_overrides(ema=0.9), 3)
    assert not train(course, small_workbench(), on_epoch=lambda *_: None).stopped


def test_a_student_with_weight_norm_is_exported() -> None:
    check_export(weight_normed(), rebuild=weight_normed, sample_images=torch.rand(4, 1, 8, 8))
