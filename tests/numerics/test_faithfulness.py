"""Faithfulness: worked numbers of two linear networks, and what every search in a ball must keep to."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Final

import pytest
import torch
from torch import Tensor, nn

from tests.numerics.reference import DIGITS
from trainables.config.faithfulness import BallSearch, ConfidenceOf
from trainables.data import ImageSplit
from trainables.errors import DataError, TrialFailed
from trainables.evaluation.ball_search import BestInBall
from trainables.evaluation.faithfulness import (
    CLIMBED,
    BallFigures,
    NetworkPair,
    ball_scores,
    drawn_rows,
    faithfulness,
    figures_of,
    log_odds,
    margins,
)

# B = images, C = classes, H, W = height and width
TEACHER: Final = ((2.0, -1.0), 0.1)
STUDENT: Final = ((1.5, -0.2), -0.1)
ONE: Final = torch.tensor([1])
QUICK: Final = BallSearch(epsilons=(4, 32), steps=3, restarts=2)


def linear(weights: tuple[float, float], bias: float) -> nn.Module:
    """Two classes of two pixels; the second one's logit is the margin, the first one's is 0."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2)).double()
    network[1].weight = nn.Parameter(torch.tensor([[0.0, 0.0], weights], dtype=torch.float64))
    network[1].bias = nn.Parameter(torch.tensor([0.0, bias], dtype=torch.float64))
    return network


def pair_of(teacher: nn.Module, student: nn.Module) -> NetworkPair:
    return NetworkPair(teacher, student, mean=(0.0,), std=(1.0,))


def pixels(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, -1)


def searched(best: BestInBall, names: tuple[str, ...], *epsilons: float) -> BestInBall:
    generator = torch.Generator().manual_seed(0)
    for epsilon in epsilons:
        best.search(names, epsilon, steps=8, restarts=2, generator=generator)
    return best


def near(
    teacher: nn.Module,
    student: nn.Module,
    image: Tensor,
    *epsilons: float,
    confidence_of: ConfidenceOf = ConfidenceOf.LABEL,
) -> BallFigures:
    """What is found within the largest of these radii."""
    best = BestInBall(ball_scores(pair_of(teacher, student), ONE, confidence_of), image)
    return figures_of(255 * max(epsilons, default=0), searched(best, CLIMBED, *epsilons).most)


def worked() -> BestInBall:
    """The image of the worked numbers, not searched yet."""
    pair = pair_of(linear(*TEACHER), linear(*STUDENT))
    return BestInBall(ball_scores(pair, ONE, ConfidenceOf.LABEL), pixels(0.4, 0.3))


def small() -> nn.Module:
    convolution = nn.Conv2d(1, 4, 3, stride=2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))


def networks() -> tuple[nn.Module, nn.Module, ImageSplit]:
    """Two small networks with batch norm, in training mode, and a split whose labels are the teacher's."""
    torch.manual_seed(0)
    teacher, student = small(), small()
    images = torch.randint(0, 256, (24, 1, 6, 6), dtype=torch.uint8)
    for network in (teacher, student):
        network(images.float() / 255)  # statistics that are not those of fresh networks
        for parameter in network.parameters():
            parameter.data *= 2
    with torch.no_grad():
        labels = teacher.eval()(images.float() / 255).argmax(dim=-1)
    return teacher.train(), student, ImageSplit(images, labels, torch.arange(24))


def test_the_image_itself_has_the_worked_margins_and_is_no_search() -> None:
    best = worked()
    odds = [best.most[name].item() for name in ("teacher_highest", "student_highest")]
    assert odds == pytest.approx([0.60, 0.44], abs=1e-12)
    figures = figures_of(0.0, best.most)
    assert figures.disagreement_at_least == 0
    gap = 1 / (1 + math.exp(-0.60)) - 1 / (1 + math.exp(-0.44))
    assert figures.confidence_gap_at_least == pytest.approx(gap, abs=1e-12)


def test_confidences_have_the_worked_ranges_and_margins_that_are_certified_never_disagree() -> None:
    """Check 1: m -+ epsilon · |w|_1 is above 0 for both, so no attack can make them differ."""
    best = worked()
    most = searched(best, CLIMBED, 0.1).most
    lowest = [-most[name].item() for name in ("teacher_lowest", "student_lowest")]
    assert lowest == pytest.approx([0.30, 0.27], abs=1e-9)
    found = figures_of(25.5, most)
    assert found.disagreement_at_least == 0
    assert [found.teacher_lowest_found, found.teacher_highest_found] == pytest.approx(
        [0.574443, 0.710950], abs=DIGITS
    )
    assert [found.student_lowest_found, found.student_highest_found] == pytest.approx(
        [0.567093, 0.647941], abs=DIGITS
    )
    assert found.relative_gap_of_lowest == pytest.approx((0.574443 - 0.567093) / 0.574443, abs=2e-6)


@pytest.mark.parametrize(("epsilon", "largest"), [(0.1, 0.29), (0.2, 0.42)])
def test_the_largest_difference_of_margins_is_found(epsilon: float, largest: float) -> None:
    """Check 2: |m_T - m_S| at the image, and epsilon · |w_T - w_S|_1."""
    pair = pair_of(linear(*TEACHER), linear(*STUDENT))

    def difference(images_BCHW: Tensor) -> dict[str, Tensor]:
        teacher_B, student_B = (margins(logits_BC, ONE) for logits_BC in pair.answers(images_BCHW))
        return {"difference": (teacher_B - student_B).abs()}

    best = searched(BestInBall(difference, pixels(0.4, 0.3)), ("difference",), epsilon)
    assert best.most["difference"].item() == pytest.approx(largest, abs=1e-9)


@pytest.mark.parametrize(("epsilon", "largest"), [(0.1, 0.063009), (0.2, 0.082845)])
def test_the_largest_gap_of_confidences_has_the_worked_value_at_its_corner(
    epsilon: float, largest: float
) -> None:
    """Check 3."""
    best = searched(worked(), CLIMBED, epsilon)
    assert figures_of(255 * epsilon, best.most).confidence_gap_at_least == pytest.approx(largest, abs=DIGITS)
    place = best.places["teacher_surer"]
    assert place.flatten().tolist() == pytest.approx([0.4 + epsilon, 0.3 - epsilon], abs=1e-9)


def test_a_gap_is_found_whichever_network_is_the_surer_one() -> None:
    assert near(linear(*STUDENT), linear(*TEACHER), pixels(0.4, 0.3), 0.1).confidence_gap_at_least == (
        pytest.approx(0.063009, abs=DIGITS)
    )


def test_a_student_that_is_its_teacher_is_faithful_in_every_ball() -> None:
    """Check 4."""
    teacher, _, split = networks()
    found = faithfulness(pair_of(teacher, deepcopy(teacher)), split, QUICK)
    assert [(b.disagreement_at_least, b.confidence_gap_at_least) for b in found.balls] == [(0, 0)] * 3
    assert [ball.relative_gap_of_lowest for ball in found.balls] == [0] * 3
    assert found.balls[2].teacher_lowest_found < found.balls[0].teacher_lowest_found


def test_no_figure_of_a_larger_ball_is_milder() -> None:
    """Check 5."""
    teacher, student, split = networks()
    balls = faithfulness(pair_of(teacher, student), split, QUICK).balls
    assert [ball.epsilon for ball in balls] == [0, 4, 32]
    for name in (
        *("disagreement_at_least", "confidence_gap_at_least"),
        *("teacher_highest_found", "student_highest_found"),
    ):
        values = [getattr(ball, name) for ball in balls]
        assert values == sorted(values), name
        assert values[0] < values[-1] or values[0] == 1, name
    for name in ("teacher_lowest_found", "student_lowest_found"):
        values = [getattr(ball, name) for ball in balls]
        assert values == sorted(values, reverse=True), name
        assert values[0] > values[-1], name


@pytest.mark.parametrize(("epsilon", "share"), [(0.04, 0.0), (0.06, 1.0)])
def test_networks_of_different_pixels_disagree_as_soon_as_one_margin_is_within_reach(
    epsilon: float, share: float
) -> None:
    """Both margins are 0.05, and each hangs on a pixel of its own."""
    teacher, student = linear((1.0, 0.0), -0.45), linear((0.0, 1.0), -0.45)
    assert near(teacher, student, pixels(0.5, 0.5), epsilon).disagreement_at_least == share


def test_a_disagreement_is_found_on_the_way_where_both_networks_change_their_mind() -> None:
    """Margins 0.10 + d and 0.05 + d fall together: only where d is between the two does one hold out."""
    teacher, student = linear((1.0, 0.0), -0.40), linear((1.0, 0.0), -0.45)
    assert near(teacher, student, pixels(0.5, 0.5), 0.3).disagreement_at_least == 1


def test_the_teachers_own_class_may_change_and_its_confidence_is_then_never_below_chance() -> None:
    teacher, student, image = linear((1.0, 0.0), -0.45), linear((2.0, 0.0), -0.9), pixels(0.5, 0.5)
    by_label = near(teacher, student, image, 0.3)
    own = near(teacher, student, image, 0.3, confidence_of=ConfidenceOf.TEACHER)
    assert by_label.teacher_lowest_found == pytest.approx(1 / (1 + math.exp(0.25)), abs=1e-9)
    assert 0.5 <= own.teacher_lowest_found < 0.51
    assert own.teacher_highest_found == by_label.teacher_highest_found


def test_a_network_that_is_sure_of_itself_is_led_away_all_the_same() -> None:
    """In fp32 its probability is 1 and has no slope; its odds have one."""
    teacher, student = linear((390.0, 0.0), -155.0).float(), linear(*STUDENT).float()
    image = pixels(0.5, 0.5).float()
    assert near(teacher, student, image).teacher_lowest_found == 1
    found = near(teacher, student, image, 0.1).teacher_lowest_found
    assert found == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-3)


def test_odds_and_margins_are_those_of_the_softmax() -> None:
    logits_BC = torch.tensor([[3.0, 1.0, 0.0, -1.0], [0.5, 0.0, 1.5, -0.5]], dtype=torch.float64)
    class_B = torch.tensor([0, 3])
    p_B = logits_BC.softmax(dim=-1)[torch.arange(2), class_B]
    torch.testing.assert_close(log_odds(logits_BC, class_B), (p_B / (1 - p_B)).log(), rtol=1e-12, atol=0)
    assert margins(logits_BC, class_B).tolist() == [2.0, -2.0]


def hill(top: float, seen: list[float] | None = None) -> Callable[[Tensor], dict[str, Tensor]]:
    """A score of images of one pixel that is largest, 0, where the pixel is `top`."""

    def scores(images_BCHW: Tensor) -> dict[str, Tensor]:
        if seen is not None:
            seen.extend(images_BCHW.detach().flatten().tolist())
        return {"height": -((images_BCHW.flatten() - top) ** 2)}

    return scores


def test_the_best_step_counts_and_not_the_last() -> None:
    """Steps of 0.05 go from 0.5 to 0.55 and back for ever, past the top."""
    best = BestInBall(hill(0.53), pixels(0.5))
    best.search(("height",), 0.1, steps=5, restarts=1, generator=torch.Generator())
    assert best.places["height"].item() == pytest.approx(0.55)
    assert best.most["height"].item() == pytest.approx(-(0.02**2))
    assert BestInBall(hill(0.53), pixels(0.5)).most["height"].item() == pytest.approx(-(0.03**2))


def test_the_image_itself_may_be_the_best() -> None:
    best = searched(BestInBall(hill(0.5), pixels(0.5)), ("height",), 0.1)
    assert best.places["height"].item() == 0.5
    assert best.most["height"].item() == 0


def test_a_larger_ball_is_searched_from_the_best_of_the_smaller_one() -> None:
    seen: list[float] = []
    best = BestInBall(hill(0.9, seen), pixels(0.5))
    best.search(("height",), 0.1, steps=4, restarts=1, generator=torch.Generator())
    assert best.places["height"].item() == pytest.approx(0.6)
    seen.clear()
    best.search(("height",), 0.2, steps=4, restarts=1, generator=torch.Generator())
    assert seen[0] == pytest.approx(0.6)
    assert best.places["height"].item() == pytest.approx(0.7)


def test_what_an_ascent_passes_counts_for_other_scores_too() -> None:
    def scores(images_BCHW: Tensor) -> dict[str, Tensor]:
        value_B = images_BCHW.flatten()
        return {"up": value_B, "is_over": (value_B > 0.55).double()}

    best = BestInBall(scores, pixels(0.5))
    best.search(("up",), 0.1, steps=4, restarts=1, generator=torch.Generator())
    assert best.most["is_over"].item() == 1


def test_scores_climbed_at_once_are_found_as_far_as_each_alone() -> None:
    together = searched(worked(), CLIMBED, 0.1).most
    for name in CLIMBED:
        alone = searched(worked(), (name,), 0.1).most[name]
        assert together[name].item() == pytest.approx(alone.item(), abs=1e-9)


def test_each_copy_climbs_its_own_score() -> None:
    def scores(images_NCHW: Tensor) -> dict[str, Tensor]:
        value_N = images_NCHW.flatten()
        return {"up": value_N, "down": -value_N, "over": (value_N > 0.55).double()}

    clean_BCHW = torch.tensor([0.5, 0.3], dtype=torch.float64).reshape(2, 1, 1, 1)
    best = searched(BestInBall(scores, clean_BCHW), ("down", "up"), 0.1)
    assert best.places["up"].flatten().tolist() == pytest.approx([0.6, 0.4])
    assert best.places["down"].flatten().tolist() == pytest.approx([0.4, 0.2])
    assert best.most["over"].tolist() == [1, 0]


@pytest.mark.parametrize("together", [1, 8, 24])
def test_figures_do_not_depend_on_how_many_images_are_attacked_together(
    together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, student, split = networks()
    alone = QUICK.with_overrides(restarts=1)  # no start is drawn
    whole = faithfulness(pair_of(teacher, student), split, alone)
    monkeypatch.setattr("trainables.evaluation.faithfulness.MAX_BATCH", together)
    parts = faithfulness(pair_of(teacher, student), split, alone)
    for ball, other in zip(whole.balls, parts.balls, strict=True):
        assert ball.plain() == pytest.approx(other.plain(), abs=1e-5)


def test_a_search_stays_in_its_ball_and_in_the_pixels_range() -> None:
    seen: list[float] = []
    searched(BestInBall(hill(-1.0, seen), pixels(0.05)), ("height",), 0.1)
    assert min(seen) == 0
    assert max(seen) <= 0.15 + 1e-12


def test_only_samples_that_the_teacher_gets_right_are_compared() -> None:
    teacher, student, split = networks()
    wrong = ImageSplit(
        split.images, torch.where(split.ids < 9, (split.labels + 1) % 3, split.labels), split.ids
    )
    found = faithfulness(pair_of(teacher, student), wrong, QUICK)
    assert (found.samples_drawn, found.samples) == (24, 15)
    rest = ImageSplit(split.images[9:], split.labels[9:], split.ids[9:])
    assert found.balls[0] == faithfulness(pair_of(teacher, student), rest, QUICK).balls[0]
    none_right = ImageSplit(split.images, (split.labels + 1) % 3, split.ids)
    with pytest.raises(DataError, match="the teacher gets none of 24 samples right"):
        faithfulness(pair_of(teacher, student), none_right, QUICK)


def test_the_same_search_gives_the_same_figures_and_another_seed_other_starts() -> None:
    teacher, student, split = networks()
    first, again = (faithfulness(pair_of(teacher, student), split, QUICK) for _ in range(2))
    assert first == again
    other = faithfulness(pair_of(teacher, student), split, QUICK.with_overrides(seed=1))
    assert other.balls != first.balls
    assert other.balls[0] == first.balls[0]


def test_samples_are_drawn_by_the_seed_and_more_of_them_are_the_same_and_others() -> None:
    split = ImageSplit(
        torch.zeros(50, 1, 1, 2, dtype=torch.uint8), torch.zeros(50).long(), torch.arange(50) * 3
    )
    few, more, other = (
        set(drawn_rows(split, BallSearch(samples=count, seed=seed)).tolist())
        for count, seed in ((10, 0), (20, 0), (10, 1))
    )
    assert (len(few), len(more)) == (10, 20)
    assert few < more
    assert other != few
    assert drawn_rows(split, BallSearch(samples=51)).tolist() == list(range(50))


def test_a_comparison_leaves_both_networks_as_they_were() -> None:
    teacher, student, split = networks()
    states = [deepcopy(network.state_dict()) for network in (teacher, student)]
    state = torch.get_rng_state()
    faithfulness(pair_of(teacher, student), split, QUICK)
    assert torch.equal(torch.get_rng_state(), state)
    for network, before in zip((teacher, student), states, strict=True):
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        assert all(module.training for module in network.modules())
        assert all(parameter.grad is None for parameter in network.parameters())


def test_progress_is_told_after_each_ascent() -> None:
    teacher, student, split = networks()
    told: list[tuple[int, int]] = []
    faithfulness(pair_of(teacher, student), split, QUICK, lambda done, total: told.append((done, total)))
    ascents = len(QUICK.epsilons) * QUICK.restarts
    assert told == [(done, ascents) for done in range(1, ascents + 1)]


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(TrialFailed, match="not finite"):
        near(linear((math.inf, 0.0), 0.0), linear(*STUDENT), pixels(0.4, 0.3), 0.1)


def test_radii_are_searched_in_ascending_order_whatever_theirs_was() -> None:
    assert BallSearch(epsilons=(8, 2, 2.0)).epsilons == (2, 8)
