"""MFEF: worked numbers, the parts of the fusion, whose gradient reaches whom, and networks of unlike maps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.numerics.reference import DIGITS, LABELS, STRONG_STUDENT, WEAK_STUDENT, logits
from trainables.config.objectives import MfefConfig
from trainables.objectives import MfefObjective
from trainables.objectives.mutual.multi_scale import ChannelGate, Extraction, Fusion, MultiScale, SpatialGate
from trainables.signals import Losses, PeerSignal, Setting, Signals

# B = samples in the batch, C = classes, D = channels

SHAPES = ((8, 4, 4), (8, 4, 4))


def maps(*shapes: tuple[int, int, int], rows: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(rows, *shape, generator=generator, dtype=torch.float64) for shape in shapes]


def signals_of(answers: list[Tensor], shown: list[Tensor], **more: Any) -> Signals:
    student_BC, *others = answers
    peers = tuple(
        PeerSignal({"weak": own_BC}, {"weak": {"last": own_map}})
        for own_BC, own_map in zip(others, shown[1:], strict=True)
    )
    settings = {"labels_B": torch.tensor(LABELS), "epoch": 1, **more}
    return Signals(
        student={"weak": student_BC},
        teacher={},
        features={"weak": {"last": shown[0]}},
        peers=peers,
        **settings,
    )


def objective(*shapes: tuple[int, int, int], **options: Any) -> MfefObjective:
    of_student, *others = [{"last": shape} for shape in shapes or SHAPES]
    setting = Setting(8, 4, 10, student_shapes=of_student, peer_shapes=tuple(others))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MfefObjective(MfefConfig(**options), setting).double()


def answers() -> list[Tensor]:
    return [logits(WEAK_STUDENT, grad=True), logits(STRONG_STUDENT, grad=True)]


class Fixed(nn.Module):
    """A fusion that says what it is told to."""

    def __init__(self, logits_BC: Tensor) -> None:
        super().__init__()
        self.logits_BC = nn.Parameter(logits_BC)

    def forward(self, _maps: list[Tensor]) -> Tensor:
        return self.logits_BC


def with_fusion(fused_BC: Tensor, given: list[Tensor], **options: Any) -> tuple[Losses, Fixed]:
    made = objective(**options)
    fixed = Fixed(fused_BC)
    made.fusion = fixed  # type: ignore[assignment]
    return made(signals_of(given, maps(*SHAPES))), fixed


def test_the_divergences_have_the_worked_values() -> None:
    """The target is the mean of both networks: F1's student on its two views."""
    mean_BC = (logits(WEAK_STUDENT) + logits(STRONG_STUDENT)) / 2
    losses, _ = with_fusion(mean_BC, answers())
    assert losses.terms["kd"].item() == pytest.approx(0.009787, abs=DIGITS)
    assert losses.terms["peer1_kd"].item() == pytest.approx(0.009641, abs=DIGITS)
    assert losses.terms["fusion_kd"].item() == pytest.approx(0.0, abs=1e-12)


def test_equal_answers_have_nothing_to_learn_from_each_other() -> None:
    same = [logits(WEAK_STUDENT, grad=True), logits(WEAK_STUDENT, grad=True)]
    losses, _ = with_fusion(logits(WEAK_STUDENT), same)
    told = [losses.terms[name].item() for name in ("kd", "peer1_kd", "fusion_kd")]
    assert told == pytest.approx([0.0, 0.0, 0.0], abs=1e-12)


def test_the_total_is_the_sum_of_its_terms() -> None:
    for weight in (0.5, 2.0):
        losses = objective(kd_weight=weight)(signals_of(answers(), maps(*SHAPES)))
        ce = sum(losses.terms[name] for name in ("ce", "peer1_ce", "fusion_ce"))
        kd = sum(losses.terms[name] for name in ("kd", "peer1_kd", "fusion_kd"))
        assert losses.total.item() == pytest.approx(float(ce + weight * kd))


@pytest.mark.parametrize(("epoch", "factor"), [(1, 0.006738), (3, 0.286505), (5, 1.0), (9, 1.0)])
def test_the_weight_may_rise_over_the_first_epochs(epoch: int, factor: float) -> None:
    config = MfefConfig(ramp_epochs=4)
    assert config.varying(epoch, 10)["ramp"] == pytest.approx(factor, abs=DIGITS)
    made = objective(ramp_epochs=4)
    losses = made(signals_of(answers(), maps(*SHAPES), epoch=epoch))
    ce = sum(losses.terms[name] for name in ("ce", "peer1_ce", "fusion_ce"))
    kd = sum(losses.terms[name] for name in ("kd", "peer1_kd", "fusion_kd"))
    assert losses.total.item() == pytest.approx(float(ce + factor * kd), rel=1e-5)


def test_what_the_fusion_teaches_does_not_reach_it() -> None:
    """Gradient of the fusion's answer: of its labels, and of what the ensemble teaches it, and no more."""
    fused_BC = logits([[0.3, 0.1, 0.2, 0.0], [0.0, 0.5, -0.5, 0.1]])
    losses, fixed = with_fusion(fused_BC, answers())
    (found_BC,) = torch.autograd.grad(losses.total, fixed.logits_BC)
    ensemble_BC = (logits(WEAK_STUDENT) + logits(STRONG_STUDENT)) / 2
    one_hot_BC = torch.eye(4, dtype=torch.float64)[torch.tensor(LABELS)]
    labels_BC = fused_BC.softmax(-1) - one_hot_BC
    taught_BC = 3.0 * ((fused_BC / 3).softmax(-1) - (ensemble_BC / 3).softmax(-1))
    torch.testing.assert_close(found_BC, (labels_BC + taught_BC) / 2)


def test_a_network_is_moved_by_its_labels_and_the_fusion_not_by_its_part_in_the_ensemble() -> None:
    fused_BC, given = logits(STRONG_STUDENT), answers()
    losses, _ = with_fusion(fused_BC, given)
    (found_BC,) = torch.autograd.grad(losses.total, given[0])
    own_BC = logits(WEAK_STUDENT)
    one_hot_BC = torch.eye(4, dtype=torch.float64)[torch.tensor(LABELS)]
    expected_BC = (own_BC.softmax(-1) - one_hot_BC) + 3 * (
        (own_BC / 3).softmax(-1) - (fused_BC / 3).softmax(-1)
    )
    torch.testing.assert_close(found_BC, expected_BC / 2)


def test_labels_reach_every_network_through_the_fusion() -> None:
    shown = [one.requires_grad_() for one in maps(*SHAPES)]
    made = objective()
    losses = made(signals_of(answers(), shown))
    gradients = torch.autograd.grad(losses.total, [*shown, *made.parameters()])
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert all(gradient.abs().sum() > 0 for gradient in gradients[: len(shown)])


def identity(channels: int) -> nn.Conv2d:
    layer = nn.Conv2d(channels, channels, 1).double()
    with torch.no_grad():
        layer.weight.copy_(torch.eye(channels)[:, :, None, None])
        layer.bias.zero_()  # type: ignore[union-attr]
    return layer


def test_one_group_and_open_gates_leave_a_map_as_it_is() -> None:
    (shown,) = maps((8, 4, 4))
    made = Extraction(8, groups=1).double()
    made.scales.join = identity(8)
    gates = (made.channel_gate.layers[-1], made.spatial_gate.convolution)
    for gate in gates:
        nn.init.zeros_(gate.weight)  # type: ignore[arg-type]
        nn.init.constant_(gate.bias, 1e6)  # type: ignore[arg-type]
    torch.testing.assert_close(made(shown), shown)


def test_groups_are_convolved_one_after_the_other() -> None:
    (shown,) = maps((6, 5, 5))
    made = MultiScale(6, groups=3).double()
    made.join = identity(6)
    first, second, third = torch.split(shown, 2, dim=1)
    one, two = made.convolutions
    middle = one(second + first)
    expected = torch.cat([first, middle, two(third + middle)], dim=1)
    torch.testing.assert_close(made(shown), expected)


def test_gates_have_their_shapes_and_lie_between_0_and_1() -> None:
    (shown,) = maps((8, 3, 5))
    channels, places = ChannelGate(8).double()(shown), SpatialGate().double()(shown)
    assert channels.shape == (2, 8, 1, 1)
    assert places.shape == (2, 1, 3, 5)
    for gate in (channels, places):
        assert bool((gate > 0).all())
        assert bool((gate < 1).all())


def test_networks_of_unlike_widths_and_map_sizes_are_fused() -> None:
    shapes = ((8, 4, 4), (4, 2, 2), (12, 7, 7))
    shown = maps(*shapes)
    third = logits([[0.0, 0.1, 0.2, 0.3], [0.3, 0.2, 0.1, 0.0]], grad=True)
    losses = objective(*shapes, peers=3)(signals_of([*answers(), third], shown))
    assert torch.isfinite(losses.total)
    fused = Fusion(shapes, groups=4, n_classes=4).double()
    assert fused(shown).shape == (2, 4)


@pytest.mark.parametrize("groups", [1, 2])
def test_the_fusions_gradients_are_those_of_finite_differences(groups: int) -> None:
    """In random directions of the maps of networks of unlike shapes, and of all its parameters."""
    shapes = ((4, 3, 3), (2, 2, 2))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Fusion(shapes, groups=groups, n_classes=3).double()
    shown = [one.requires_grad_() for one in maps(*shapes)]
    names, parameters = zip(*made.named_parameters(), strict=True)

    def fused(*values: Tensor) -> Tensor:
        given = dict(zip(names, values[len(shown) :], strict=True))
        answer: Tensor = torch.func.functional_call(made, given, (values[: len(shown)],))
        return answer

    assert torch.autograd.gradcheck(fused, (*shown, *parameters), rtol=1e-6, atol=1e-9, fast_mode=True)


@pytest.mark.parametrize(("channels", "groups"), [(8, 4), (6, 2), (7, 1), (12, 4)])
def test_there_are_as_many_groups_as_divide_the_channels(channels: int, groups: int) -> None:
    assert MultiScale(channels, groups=4).groups == groups


def test_a_network_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="mfef fuses several networks"):
        objective((8, 4, 4))


@pytest.mark.parametrize("rows", [1, 2])
def test_degenerate_batches_stay_finite(rows: int) -> None:
    """One image, whose maps have several places for the fusion's batch norm."""
    shown = [one[:rows] for one in maps(*SHAPES)]
    given = [one[:rows] for one in answers()]
    made = objective()
    losses = made(signals_of(given, shown, labels_B=torch.tensor(LABELS[:rows])))
    assert torch.isfinite(losses.total)
