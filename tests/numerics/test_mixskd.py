"""MixSKD: worked numbers, mixtures of answers and maps, whose gradient reaches whom, and both modes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.numerics.reference import DIGITS, WEAK_STUDENT, logits
from trainables.config.objectives import MixskdConfig, MixskdMode
from trainables.objectives import MixskdObjective
from trainables.objectives.mutual.discriminators import Discriminator, reversed_gradient
from trainables.objectives.mutual.mixskd import SelfTeacher, Stage
from trainables.objectives.terms.divergences import kd_divergence_B
from trainables.signals import Losses, Pairs, Setting, Signals

# B = samples in the batch, C = classes, D = channels of the last map

MIXED_ANSWERS = [[0.5, 0.1, 0.3, -0.2], [0.6, 0.2, 0.0, 0.1]]
LINEAR = [[0.44, -0.06, 0.41, 0.07], [0.76, 0.26, -0.11, 0.03]]
LABELS = torch.tensor([0, 2])
CHANNELS, CLASSES = 6, 4
SHAPES = {"stage1": (3, 8, 8), "stage2": (4, 4, 4), "stage3": (CHANNELS, 2, 2)}


def pairs(share: float = 0.3) -> Pairs:
    return Pairs(torch.tensor([1, 0]), torch.tensor(share, dtype=torch.float64))


class Branch(nn.Module):
    """Stands for the later stages: a stage's map to logits and a map of the last stage's shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.further, self.head = nn.Conv2d(channels, CHANNELS, 1), nn.Linear(CHANNELS, CLASSES)

    def forward(self, map_BCHW: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        last = F.adaptive_avg_pool2d(torch.tanh(self.further(map_BCHW)), 2)
        return self.head(last.mean(dim=(2, 3))), {"last": last}


def setting() -> Setting:
    return Setting(
        8,
        CLASSES,
        10,
        student_shapes=SHAPES,
        later_stages=lambda stage, number: Branch(SHAPES[stage][0]) if number == 0 else nn.Identity(),
    )


def objective(**options: Any) -> MixskdObjective:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MixskdObjective(MixskdConfig(**options), setting()).double()


def signals(share: float = 0.3, *, same: bool = False) -> Signals:
    """Random answers and maps of two images and of their mixtures, which with `same` show the images."""
    generator = torch.Generator().manual_seed(3)

    def drawn(shape: tuple[int, ...]) -> Tensor:
        made = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
        return made.requires_grad_()

    features = {bank: {name: drawn(shape) for name, shape in SHAPES.items()} for bank in ("weak", "mixed")}
    student = {bank: drawn((CLASSES,)) for bank in ("weak", "mixed")}
    if same:
        features["mixed"], student["mixed"] = features["weak"], student["weak"]
    return Signals(student, {}, LABELS, 1, features=features, pairs=pairs(share))


def total_of(made: MixskdObjective, given: Signals) -> Losses:
    return made(given)


def stage_of(clean: list[list[float]], mixed: list[list[float]]) -> Stage:
    return Stage(logits(clean), logits(mixed), torch.zeros(2, 1, 1, 1), torch.zeros(2, 1, 1, 1))


def test_the_mixture_of_answers_has_the_worked_values() -> None:
    found = stage_of(WEAK_STUDENT, MIXED_ANSWERS).linear_BC(pairs())
    torch.testing.assert_close(found, logits(LINEAR))


def test_both_divergences_have_the_worked_values() -> None:
    one = kd_divergence_B(logits(LINEAR), logits(MIXED_ANSWERS), temperature=3.0).mean().item()
    other = kd_divergence_B(logits(MIXED_ANSWERS), logits(LINEAR), temperature=3.0).mean().item()
    assert one == pytest.approx(0.009311, abs=DIGITS)
    assert other == pytest.approx(0.009342, abs=DIGITS)
    found = objective()._divergences(
        [stage_of(WEAK_STUDENT, MIXED_ANSWERS), stage_of(MIXED_ANSWERS, MIXED_ANSWERS)],
        logits(MIXED_ANSWERS),
        logits(MIXED_ANSWERS),
        Pairs(torch.tensor([0, 1]), torch.tensor(1.0, dtype=torch.float64)),
    )
    # With share 1 the first stage compares the fixture's answers, and the last one equal ones.
    straight = kd_divergence_B(logits(WEAK_STUDENT), logits(MIXED_ANSWERS), temperature=3.0).mean()
    back = kd_divergence_B(logits(MIXED_ANSWERS), logits(WEAK_STUDENT), temperature=3.0).mean()
    assert found.item() == pytest.approx((straight + back).item())
    branch, last = stage_of(WEAK_STUDENT, MIXED_ANSWERS), stage_of(LINEAR, LINEAR)
    both = objective()._divergences([branch, last], last.linear_BC(pairs()), logits(LINEAR), pairs())
    assert both.item() == pytest.approx(0.018652, abs=DIGITS)


def test_mixed_labels_have_the_worked_value() -> None:
    given = signals()
    found = objective()._mixed_labels(logits(MIXED_ANSWERS), given, pairs())
    assert found.item() == pytest.approx(1.226278, abs=DIGITS)


def test_the_distance_of_maps_has_the_worked_value() -> None:
    shown = [logits(rows)[:, :, None, None] for rows in ([[1.0, 2.0], [3.0, -1.0]], [[2.0, 0.0], [1.0, 1.0]])]
    stage = Stage(logits(WEAK_STUDENT), logits(MIXED_ANSWERS), shown[0], shown[1])
    assert objective()._distance(stage, pairs()).item() == pytest.approx(0.135, abs=DIGITS)


def test_a_share_of_1_leaves_nothing_between_images_and_mixtures() -> None:
    losses = objective(disc_weight=1.0)(signals(1.0, same=True))
    assert losses.terms["features"].item() == pytest.approx(0.0, abs=1e-15)
    assert losses.terms["discriminators"].item() > 0.1
    stages = objective()._stages(signals(1.0, same=True))
    held = Pairs(torch.tensor([1, 0]), torch.tensor(1.0, dtype=torch.float64))
    for stage in stages[:-1]:
        torch.testing.assert_close(stage.linear_BC(held), stage.mixed_BC)


def test_the_divergences_do_not_reach_the_self_teacher() -> None:
    made, given = objective(), signals()
    losses = made(given)
    kl_alone = objective(kl_weight=2.0)
    kl_alone.load_state_dict(made.state_dict())
    gradients = [
        torch.autograd.grad(total, list(one.self_teacher.parameters()))
        for one, total in ((made, losses.total), (kl_alone, kl_alone(given).total))
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_branches_learn_from_both_sides_of_a_mixture() -> None:
    """lin and mix of a branch move towards each other, though each target is held still."""
    stage = Stage(
        logits(WEAK_STUDENT, grad=True),
        logits(MIXED_ANSWERS, grad=True),
        torch.zeros(2, 1, 1, 1),
        torch.zeros(2, 1, 1, 1),
    )
    last = stage_of(LINEAR, LINEAR)
    total = objective()._divergences([stage, last], last.linear_BC(pairs()), logits(LINEAR), pairs())
    clean_BC, mixed_BC = torch.autograd.grad(total, [stage.clean_BC, stage.mixed_BC])
    linear_BC = logits(LINEAR)
    towards_BC = 3.0 * ((logits(MIXED_ANSWERS) / 3).softmax(-1) - (linear_BC / 3).softmax(-1)) / 2
    torch.testing.assert_close(mixed_BC, towards_BC)
    back_BC = -towards_BC
    torch.testing.assert_close(clean_BC, 0.3 * back_BC + 0.7 * back_BC.flip(0))


def test_both_sides_of_the_distance_of_maps_move() -> None:
    given = signals()
    losses = objective(kl_weight=0.0, feature_weight=1000.0)(given)
    for bank in ("weak", "mixed"):
        gradients = torch.autograd.grad(losses.total, list(given.features[bank].values()), retain_graph=True)
        assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_the_total_is_the_sum_of_its_terms() -> None:
    weights = {"kl_weight": 0.5, "feature_weight": 3.0, "disc_weight": 0.25}
    for mode in MixskdMode:
        losses = objective(mode=mode, **weights)(signals())
        terms = {name: value.item() for name, value in losses.terms.items()}
        expected = terms["ce"] + 0.5 * terms["kl"] + 3.0 * terms["features"] + 0.25 * terms["discriminators"]
        expected += terms["ce_mixed"] if mode is MixskdMode.PAPER else 0.0
        assert losses.total.item() == pytest.approx(expected)
    assert losses.gauges["share"].item() == pytest.approx(0.3)


def test_in_paper_mode_discriminators_learn_and_maps_deceive_them() -> None:
    gradients = {mode: _gradients(mode) for mode in MixskdMode}
    script, paper = (gradients[mode][0] for mode in (MixskdMode.SCRIPT, MixskdMode.PAPER))
    for of_script, of_paper in zip(script, paper, strict=True):
        torch.testing.assert_close(of_script, -of_paper)
    assert gradients[MixskdMode.PAPER][1]
    assert not gradients[MixskdMode.SCRIPT][1]


def _gradients(mode: MixskdMode) -> tuple[list[Tensor], bool]:
    """Of the discriminators' loss with respect to the last maps, and whether they are trained themselves."""
    made, given = objective(mode=mode, disc_weight=1.0), signals()
    loss = made._discriminated(made._stages(given), pairs())
    shown = [given.features[bank]["stage3"] for bank in ("weak", "mixed")]
    found = torch.autograd.grad(loss, shown)
    return list(found), all(parameter.requires_grad for parameter in made.discriminators.parameters())


def test_a_discriminator_tells_mixtures_of_maps_from_maps_of_mixtures() -> None:
    judge = Discriminator(2).double()
    linear, mixed = (
        logits(rows)[:, :, None, None] for rows in ([[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [2.0, 0.0]])
    )
    scores = judge.layers(torch.cat([linear, mixed]).flatten(1)).sigmoid()
    targets = torch.tensor([[1.0, 0.0]] * 2 + [[0.0, 1.0]] * 2, dtype=torch.float64)
    expected = -(targets * scores.log() + (1 - targets) * (1 - scores).log()).mean()
    torch.testing.assert_close(judge(linear, mixed), expected)


def test_the_reversed_gradient_has_the_other_sign_and_the_value_stays() -> None:
    given = torch.tensor([1.0, -2.0], requires_grad=True)
    made = reversed_gradient(given)
    assert torch.equal(made, given)
    (found,) = torch.autograd.grad((made**2).sum(), given)
    assert torch.equal(found, -2 * given)


def test_the_self_teacher_takes_the_maps_of_all_stages() -> None:
    made = SelfTeacher(3, CHANNELS, CLASSES).double()
    shown = [torch.randn(2, CHANNELS, 2, 2, dtype=torch.float64) for _ in range(3)]
    weight = made.join.weight.flatten(1)
    pooled = F.linear(torch.cat(shown, dim=1).mean(dim=(2, 3)), weight, made.join.bias)
    torch.testing.assert_close(made(shown), made.head(pooled))


def test_the_networks_own_gradient_is_that_of_finite_differences() -> None:
    made, given = objective(), signals()

    def total(student: Callable[..., Tensor] | Tensor) -> Tensor:
        return made._labels(student, given) + made._mixed_labels(student, given, pairs())  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(total, logits(WEAK_STUDENT, grad=True), rtol=1e-6, atol=1e-9)


def differences(loss: Callable[[], Tensor], of: Tensor) -> Tensor:
    """The gradient of a loss with respect to a leaf that it hangs on, by central differences."""
    found, step = torch.zeros_like(of), 1e-6
    with torch.no_grad():
        values, slopes = of.view(-1), found.view(-1)
        for place, value in enumerate(values.tolist()):
            sides = []
            for moved in (value + step, value - step):
                values[place] = moved
                sides.append(loss().item())
            values[place] = value
            slopes[place] = (sides[0] - sides[1]) / (2 * step)
    return found


def maps_of(given: Signals) -> list[Tensor]:
    """Of images and of their mixtures at the last stage, and of images at one that has a branch."""
    (clean, mixed), last = (given.features[bank] for bank in ("weak", "mixed")), "stage3"
    return [clean[last], mixed[last], clean["stage2"]]


def agree(found: tuple[Tensor, ...], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.abs().sum() > 0
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


def test_the_distance_of_maps_has_the_gradient_of_finite_differences() -> None:
    made, given = objective(), signals()

    def distance() -> Tensor:
        return torch.stack([made._distance(stage, pairs()) for stage in made._stages(given)]).sum()

    agree(torch.autograd.grad(distance(), maps_of(given)), [differences(distance, m) for m in maps_of(given)])


@pytest.mark.parametrize("mode", MixskdMode)
def test_what_discriminators_say_has_the_gradient_of_finite_differences_reversed_for_maps_in_paper_mode(
    mode: MixskdMode,
) -> None:
    made, given = objective(mode=mode, disc_weight=1.0), signals()

    def told() -> Tensor:
        return made._discriminated(made._stages(given), pairs())

    sign = -1 if mode is MixskdMode.PAPER else 1
    agree(torch.autograd.grad(told(), maps_of(given)), [sign * differences(told, m) for m in maps_of(given)])
    if mode is MixskdMode.PAPER:  # they themselves learn to tell, and are trained in this mode alone
        learned = [judge.layers[-1].bias for judge in made.discriminators]  # type: ignore[union-attr, index]
        agree(torch.autograd.grad(told(), learned), [differences(told, bias) for bias in learned])


def test_a_network_of_one_stage_has_no_branch_and_a_self_teacher_still() -> None:
    one = {"stage1": (CHANNELS, 2, 2)}
    made = MixskdObjective(
        MixskdConfig(), Setting(8, CLASSES, 10, student_shapes=one, later_stages=lambda *_: nn.Identity())
    )
    assert not made.branches
    assert made.self_teacher.join.in_channels == CHANNELS


def test_what_is_missing_is_refused() -> None:
    with pytest.raises(ValueError, match="mixskd makes branches of the network"):
        MixskdObjective(MixskdConfig(), Setting(8, CLASSES, 10, student_shapes=SHAPES))
    given = signals()
    bare = Signals(given.student, {}, LABELS, 1, features=given.features)
    with pytest.raises(ValueError, match="hold no pairs"):
        objective()(bare)
