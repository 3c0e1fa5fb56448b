"""Fake quantisation: how numbers are rounded, where, and what of a network stays as it is."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.unit.trainables.models.residual_network import Residual
from trainables.errors import CheckpointError, StillhouseError
from trainables.models.fake_quantised.network import (
    fake_quantise,
    load_fake_quantised,
    measure_ranges,
)
from trainables.models.fake_quantised.points import POINTS, find_points
from trainables.models.fake_quantised.quantisers import ActivationQuantiser, quantised_weight
from trainables.models.weights import save_weights

SHAPE = (3, 8, 8)


class Strange(nn.Module):
    """Without a layer that could be quantised, or with a step that hangs on the images."""

    def __init__(self, *, decides: bool) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.decides = decides

    def forward(self, images: Tensor) -> Tensor:
        if self.decides and images.sum() > 0:
            images = -images
        return images.mean(dim=(2, 3)) * self.scale


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    torch.manual_seed(0)
    network = Residual().train()
    with torch.no_grad():
        for _ in range(5):
            network(torch.randn(16, *SHAPE))
    return network.eval()


def quantised(network: nn.Module) -> nn.Module:
    made = copy.deepcopy(network)
    fake_quantise(made, find_points(made, SHAPE))
    measure_ranges(made, [torch.randn(16, *SHAPE, generator=torch.Generator().manual_seed(1))])
    return made


def test_weights_are_whole_numbers_of_a_step_of_each_channel() -> None:
    weight = torch.tensor([[0.64, -0.324, 0.011], [-1.28, 0.0, 0.05], [0.0, 0.0, 0.0]])
    steps_O1 = torch.tensor([[0.01], [0.02], [1.0]])
    expected = torch.tensor([[64.0, -32.0, 1.0], [-64.0, 0.0, 2.0], [0.0, 0.0, 0.0]]) * steps_O1
    assert torch.allclose(quantised_weight(weight), expected, atol=1e-7)
    once = quantised_weight(torch.randn(8, 5))
    assert torch.allclose(quantised_weight(once), once, atol=1e-6)


def test_folding_a_factor_into_each_channel_changes_no_whole_number() -> None:
    weight, factors_O1 = torch.randn(6, 9), torch.tensor([[0.3], [-2.0], [1.7], [-0.01], [5.0], [1.0]])
    assert torch.allclose(quantised_weight(weight * factors_O1), quantised_weight(weight) * factors_O1)


def test_activations_have_256_levels_of_the_measured_range_and_no_gradient_beyond_it() -> None:
    quantiser = ActivationQuantiser().eval()
    quantiser.measures = True
    assert torch.equal(quantiser(torch.tensor([-1.0, 0.3])), torch.tensor([-1.0, 0.3]))
    quantiser(torch.tensor([1.55]))
    quantiser.measures = False
    assert quantiser.constants() == pytest.approx((0.01, 100))
    values = torch.tensor([-3.0, -0.512, 0.0, 0.338, 9.0], requires_grad=True)
    rounded = quantiser(values)
    assert torch.allclose(rounded, torch.tensor([-1.0, -0.51, 0.0, 0.34, 1.55]), atol=1e-6)
    rounded.sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0, 1, 1, 1, 0]


def test_a_range_follows_the_batches_in_training_alone_and_always_holds_0() -> None:
    quantiser = ActivationQuantiser()
    quantiser.low.fill_(-1)
    quantiser.high.fill_(2)
    quantiser.eval()(torch.tensor([-50.0, 50.0]))
    assert (float(quantiser.low), float(quantiser.high)) == (-1, 2)
    quantiser.train()(torch.tensor([3.0, 4.0]))
    assert float(quantiser.low) == pytest.approx(-0.99)
    assert float(quantiser.high) == pytest.approx(2.02)


def test_a_convolution_ends_behind_its_batch_norm_and_where_its_readers_round_nothing(
    trained: nn.Module,
) -> None:
    points = find_points(trained, SHAPE)
    assert points.layers == ("conv1", "conv2", "fc")
    # The stem is read by conv2 and by the shortcut, and its ReLU is called elsewhere too.
    assert points.outputs == ("bn1", "conv2")
    assert points.inputs == ("conv1", "conv2", "fc")


def test_what_each_module_does_once_is_rounded_once() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.MaxPool2d(2)
    ).eval()
    points = find_points(network, SHAPE)
    assert points.inputs == ("0", "3")  # the first ReLU is read by a convolution, which rounds
    assert points.outputs == ("4",)


def test_the_quantised_network_answers_nearly_as_before_and_keeps_its_names(trained: nn.Module) -> None:
    made, images = quantised(trained), torch.randn(32, *SHAPE)
    with torch.no_grad():
        before, after = trained(images), made.eval()(images)
    assert not torch.equal(before, after)
    assert float((before - after).abs().max()) < 0.1 * float(before.abs().max())
    assert [name for name, _ in made.named_parameters()] == [name for name, _ in trained.named_parameters()]
    assert isinstance(made.get_submodule("conv1"), nn.Conv2d)


def test_batch_norm_keeps_its_statistics_in_training_and_everything_gets_a_gradient(
    trained: nn.Module,
) -> None:
    made = quantised(trained)
    before = made.get_buffer("bn1.running_mean").clone()
    ranges = made.get_buffer("bn1.output_quantiser.high").clone()
    made.train()(10 * torch.randn(16, *SHAPE)).square().sum().backward()
    assert torch.equal(made.get_buffer("bn1.running_mean"), before)
    assert made.get_buffer("bn1.output_quantiser.high") > ranges
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in made.parameters())


def test_a_file_of_weights_gives_the_network_back(trained: nn.Module, tmp_path: Path) -> None:
    made = quantised(trained).eval()
    path, images = tmp_path / "aware.safetensors", torch.randn(4, *SHAPE)
    save_weights(made, path, {POINTS: find_points(trained, SHAPE).model_dump_json()})
    other = Residual()
    load_fake_quantised(other, path)
    assert torch.equal(other.eval()(images), made(images))
    save_weights(made, path, {})
    with pytest.raises(CheckpointError, match="does not say where it is quantised"):
        load_fake_quantised(Residual(), path)


def test_a_layer_of_another_class_stays_as_it_is() -> None:
    class Other(nn.Linear):
        pass

    network = nn.Sequential(nn.Flatten(), Other(192, 4), nn.ReLU(), nn.Linear(4, 2))
    assert find_points(network, SHAPE).layers == ("3",)


@pytest.mark.parametrize(
    ("decides", "told"), [(True, "cannot be followed by torch.export"), (False, "has no torch.nn.Conv2d")]
)
def test_a_network_that_cannot_be_quantised_is_refused(decides: bool, told: str) -> None:
    with pytest.raises(StillhouseError, match=f"Strange {told}"):
        find_points(Strange(decides=decides), SHAPE)
