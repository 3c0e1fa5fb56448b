"""Mutual contrastive learning in a batch: worked numbers, limits, whose gradient reaches whom, and masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import pytest
import torch
from torch import Tensor

from tests.numerics.feature_stand_ins import setting_of
from tests.numerics.peers import embedded
from tests.numerics.reference import DIGITS, logits
from tests.numerics.representation.embedding_signals import numbers, random
from trainables.config.base import Config
from trainables.config.objective_base import Need
from trainables.config.objectives import KdHearers, MclConfig, MclForm
from trainables.objectives import MclObjective
from trainables.objectives.mutual.terms.contrast import (
    Columns,
    MutualTerms,
    batch_columns,
    batch_scores,
    contrast,
    logarithm,
    mutual_terms,
    soft_gap,
)
from trainables.signals import Signals

# B = samples in the batch, C = classes, D = numbers in an embedding, K = networks

LABELS: Final = [0, 0, 1, 1]
FIRST: Final = [0.0, 20.0, 90.0, 120.0]
SECOND: Final = [10.0, 30.0, 80.0, 110.0]
"""Degrees on the unit circle."""
TOTAL: Final = 1.234078
"""Of the four kinds of terms at the paper's weights."""


def circle(degrees: Sequence[float], *, turned: float = 0.0) -> Tensor:
    angles = torch.deg2rad(numbers(degrees) + turned)
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


def columns_of(labels: Sequence[int]) -> Columns:
    """Of samples that are all others."""
    return batch_columns(torch.tensor(labels), torch.arange(len(labels)))


def terms_of(*units: Tensor, labels: Sequence[int] = LABELS, tau: float = 0.1) -> MutualTerms:
    columns = columns_of(labels)
    return mutual_terms(batch_scores(units, tau=tau), columns, columns, temperature=3.0)


def values(terms: MutualTerms) -> dict[str, float]:
    """Each kind over all networks."""
    return {
        "vcl": sum(one.item() for one in terms.vcl_K),
        "soft_vcl": sum(one.item() for one in terms.soft_vcl_K),
        "icl": terms.icl.item(),
        "soft_icl": terms.soft_icl.item(),
    }


def through_nothing(objective: MclObjective) -> MclObjective:
    """With layers that leave an embedding of two numbers as it is: x is what x and -x give above 0."""
    for level in objective.levels:
        for head in level.heads:  # type: ignore[union-attr]
            first, _, second = head
            with torch.no_grad():
                first.weight.copy_(numbers([[1, 0], [-1, 0], [0, 1], [0, -1]]))
                second.weight.copy_(numbers([[1, -1, 0, 0], [0, 0, 1, -1], [0] * 4, [0] * 4]))
                first.bias.zero_()
                second.bias.zero_()
    return objective


def mcl(signals: Signals, **fields: Any) -> MclObjective:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = MclConfig(peers=len(signals.peers) + 1, **{"dim": 4, **fields})
        return MclObjective(config, setting_of(signals)).to(signals.student["weak"].dtype)


def three_random(seed: int, rows: int = 5) -> list[Tensor]:
    """Of length 1, of three networks."""
    drawn = [random(seed + number, rows, 3) for number in range(3)]
    return [one / one.norm(dim=-1, keepdim=True) for one in drawn]


def test_the_terms_have_the_worked_values() -> None:
    first, second = circle(FIRST), circle(SECOND)
    terms = terms_of(first, second)
    assert [one.item() for one in terms.vcl_K] == pytest.approx([0.002031, 0.040191], abs=DIGITS)
    expected = {"vcl": 0.042221, "soft_vcl": 0.711936, "icl": 0.029520, "soft_icl": 0.514968}
    assert values(terms) == pytest.approx(expected, abs=DIGITS)
    scores, columns = batch_scores([first, second], tau=0.1), columns_of(LABELS)
    across = sorted(contrast(scores[a][1 - a], columns).item() for a in (0, 1))
    assert across == pytest.approx([0.005512, 0.024009], abs=DIGITS)


def test_the_objective_adds_them_to_the_cross_entropies_at_the_papers_weights() -> None:
    signals = embedded([circle(FIRST), 3 * circle(SECOND)], labels=LABELS)
    losses = through_nothing(mcl(signals))(signals)
    assert losses.terms["vcl"].item() == pytest.approx(0.002031, abs=DIGITS)
    assert losses.terms["peer1_vcl"].item() == pytest.approx(0.040191, abs=DIGITS)
    both = losses.terms["soft_vcl"] + losses.terms["peer1_soft_vcl"]
    assert both.item() == pytest.approx(0.711936, abs=DIGITS)
    assert losses.terms["icl"].item() == pytest.approx(0.029520, abs=DIGITS)
    assert losses.terms["soft_icl"].item() == pytest.approx(0.514968, abs=DIGITS)
    assert losses.total.item() == pytest.approx(TOTAL + 2 * math.log(2), abs=DIGITS)
    assert losses.gauges["paired"].item() == 1.0


def test_each_weight_is_of_its_own_terms() -> None:
    signals = embedded([circle(FIRST), circle(SECOND)], labels=LABELS)
    weights = {"vcl": 0.3, "soft_vcl": 0.7, "icl": 2.0, "soft_icl": 5.0}
    fields = {f"{name}_weight": weight for name, weight in weights.items()}
    total = through_nothing(mcl(signals, **fields))(signals).total.item()
    found = values(terms_of(circle(FIRST), circle(SECOND)))
    expected = sum(weight * found[name] for name, weight in weights.items())
    assert total == pytest.approx(2 * math.log(2) + expected)


def test_equal_networks_have_nothing_soft_to_say_and_contrast_across_as_within() -> None:
    units = [circle(FIRST).requires_grad_(), circle(FIRST).requires_grad_()]
    terms = terms_of(*units)
    soft = [*terms.soft_vcl_K, terms.soft_icl]
    assert [one.item() for one in soft] == pytest.approx([0.0] * 3, abs=1e-15)
    for gradient_BD in torch.autograd.grad(torch.stack(soft).sum(), units, retain_graph=True):
        torch.testing.assert_close(gradient_BD, torch.zeros(4, 2).double(), atol=1e-13, rtol=0)
    assert terms.icl.item() == pytest.approx(2 * terms.vcl_K[0].item())


@pytest.mark.parametrize("seed", range(5))
def test_a_common_rotation_changes_nothing(seed: int) -> None:
    units = three_random(seed)
    turn_DD = torch.linalg.qr(random(100 + seed, 3, 3)).Q
    turned = [unit_BD @ turn_DD for unit_BD in units]
    labels = [0, 1, 0, 1, 1]
    assert values(terms_of(*turned, labels=labels)) == pytest.approx(values(terms_of(*units, labels=labels)))


def test_a_rotation_of_one_network_changes_what_is_across_alone() -> None:
    still, turned = (values(terms_of(circle(FIRST), circle(SECOND, turned=by))) for by in (0.0, 50.0))
    for name in ("vcl", "soft_vcl"):
        assert turned[name] == pytest.approx(still[name])
    for name in ("icl", "soft_icl"):
        assert turned[name] != pytest.approx(still[name], rel=1e-2)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_networks_samples_and_classes_changes_nothing(seed: int) -> None:
    units, labels = three_random(seed), torch.tensor([0, 1, 0, 1, 1])
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    moved = [unit_BD[order] for unit_BD in (units[2], units[0], units[1])]
    found = values(terms_of(*moved, labels=(1 - labels[order]).tolist()))
    assert found == pytest.approx(values(terms_of(*units, labels=labels.tolist())))


def test_of_three_networks_each_pair_counts() -> None:
    units, labels = three_random(3), [0, 1, 0, 1, 1]
    pairs = [values(terms_of(units[a], units[b], labels=labels)) for a, b in ((0, 1), (0, 2), (1, 2))]
    found = values(terms_of(*units, labels=labels))
    for name in ("soft_vcl", "icl", "soft_icl"):
        assert found[name] == pytest.approx(sum(pair[name] for pair in pairs))
    assert found["vcl"] == pytest.approx(sum(pair["vcl"] for pair in pairs) / 2)


def test_gradients_of_the_contrast_are_those_of_finite_differences() -> None:
    columns = columns_of([0, 1, 0, 1, 2])
    scores_BB = 3 * random(1, 5, 5, grad=True)
    assert torch.autograd.gradcheck(lambda s: contrast(s, columns), scores_BB, rtol=1e-6, atol=1e-9)
    units = [unit_BD.requires_grad_() for unit_BD in three_random(1)]

    def hard(*units: Tensor) -> Tensor:
        terms = terms_of(*units, labels=[0, 1, 0, 1, 2])
        return torch.stack(terms.vcl_K).sum() + terms.icl

    assert torch.autograd.gradcheck(hard, units, rtol=1e-6, atol=1e-9)


def test_the_soft_gap_has_the_gradient_of_differences_and_of_the_closed_form() -> None:
    own_BM, other_BM = 3 * random(1, 4, 6, grad=True), 3 * random(2, 4, 6, grad=True)

    def gap(own_BM: Tensor) -> Tensor:
        return soft_gap(own_BM, other_BM, temperature=3.0)

    assert torch.autograd.gradcheck(gap, own_BM, rtol=1e-6, atol=1e-9)
    own, other = torch.autograd.grad(
        gap(own_BM), (own_BM, other_BM), allow_unused=True, materialize_grads=True
    )
    assert not other.any()
    expected_BM = 3 * ((own_BM / 3).softmax(dim=-1) - (other_BM / 3).softmax(dim=-1)) / 4
    torch.testing.assert_close(own, expected_BM)


def reaches(loss: Tensor, units: Sequence[Tensor]) -> list[bool]:
    found = torch.autograd.grad(loss, units, retain_graph=True, allow_unused=True)
    return [gradient_BD is not None and bool(gradient_BD.abs().sum() > 0) for gradient_BD in found]


def test_what_is_within_a_network_moves_that_network_alone_and_what_is_across_both() -> None:
    units = [unit_BD.requires_grad_() for unit_BD in three_random(4)]
    terms = terms_of(*units, labels=[0, 1, 0, 1, 1])
    for number in range(3):
        alone = [other == number for other in range(3)]
        assert reaches(terms.vcl_K[number], units) == alone
        assert reaches(terms.soft_vcl_K[number], units) == alone
    assert reaches(terms.icl, units) == reaches(terms.soft_icl, units) == [True] * 3


def test_the_soft_term_across_follows_each_direction_with_the_other_one_held() -> None:
    units = [circle(FIRST).requires_grad_(), circle(SECOND).requires_grad_()]
    found = torch.autograd.grad(terms_of(*units).soft_icl, units)
    scores = batch_scores(units, tau=0.1)
    held = batch_scores([unit_BD.detach() for unit_BD in units], tau=0.1)
    ways = [soft_gap(scores[a][1 - a], held[1 - a][a], temperature=3.0) for a in (0, 1)]
    torch.testing.assert_close(found, torch.autograd.grad(torch.stack(ways).sum(), units))


def test_the_total_trains_every_network_and_its_layers() -> None:
    embeddings = [random(n, 4, width, grad=True) for n, width in enumerate((3, 5, 2))]
    signals = embedded(embeddings, labels=LABELS)
    objective = mcl(signals)
    torch.autograd.backward([objective(signals).total])
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in embeddings)
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in objective.parameters())


def test_layers_are_as_wide_as_each_networks_embedding() -> None:
    signals = embedded([random(n, 4, width) for n, width in enumerate((3, 70))], labels=LABELS)
    shapes = {name: tuple(value.shape) for name, value in mcl(signals, dim=128).state_dict().items()}
    for number, width in enumerate((3, 70)):
        assert shapes[f"levels.0.heads.{number}.0.weight"] == (128, width)
        assert shapes[f"levels.0.heads.{number}.2.weight"] == (128, 128)


def test_a_row_without_a_positive_counts_as_nothing_in_the_mean_over_all() -> None:
    unit_BD = circle([*FIRST, 200.0])
    scores_BB = batch_scores([unit_BD], tau=0.5)[0][0]
    lonely = contrast(scores_BB, columns_of([0, 0, 1, 1, 2]))
    rows = []
    for row, partner in ((0, 1), (1, 0), (2, 3), (3, 2)):
        others = [other for other in range(5) if other != row]
        rows.append(scores_BB[row, others].logsumexp(dim=0) - scores_BB[row, partner])
    assert lonely.item() == pytest.approx(torch.stack(rows).sum().item() / 5)


def test_a_sample_that_comes_twice_is_no_positive_of_itself_and_not_told_from_itself() -> None:
    """As with pairs: the third image of a class has one of the others again beside it."""
    unit_BD = circle([0.0, 20.0, 70.0, 0.0, 90.0, 90.0])
    rows_B, labels_B = torch.tensor([5, 6, 7, 5, 9, 9]), torch.tensor([0, 0, 0, 0, 1, 1])
    scores_BB = batch_scores([unit_BD], tau=0.5)[0][0]
    columns = batch_columns(labels_B, rows_B)
    positives = [[1, 2], [0, 2, 3], [0, 1, 3], [1, 2]]
    assert [row.nonzero().flatten().tolist() for row in columns.is_positive_BM] == [*positives, [], []]
    expected = []
    for row, partners in enumerate(positives):
        others = [other for other in range(6) if rows_B[other] != rows_B[row]]
        expected.append(scores_BB[row, others].logsumexp(dim=0) - scores_BB[row, partners].mean())
    found = contrast(scores_BB, columns)
    assert found.item() == pytest.approx(torch.stack(expected).sum().item() / 6)
    assert columns.soft_log_times_BM is None  # softened, each column counts


def test_the_objective_knows_samples_by_their_rows() -> None:
    embeddings = [random(n, 4, 3) for n in range(2)]
    signals = embedded(embeddings, labels=LABELS)
    twice = replace(signals, rows_B=torch.tensor([0, 0, 2, 3]))
    objective = mcl(signals)
    assert objective(signals).gauges["paired"].item() == 1.0
    assert objective(twice).gauges["paired"].item() == 0.5
    with pytest.raises(ValueError, match="mcl needs the rows of its samples"):
        objective(replace(signals, rows_B=None))


@pytest.mark.parametrize("labels", [[0], [0, 1, 2], [-1, -1, -1]])
def test_without_any_positive_the_contrast_is_nothing(labels: list[int]) -> None:
    units = [unit_BD.requires_grad_() for unit_BD in three_random(2, rows=len(labels))]
    terms = terms_of(*units, labels=labels)
    hard = torch.stack([*terms.vcl_K, terms.icl])
    assert hard.tolist() == [0.0] * 4
    for gradient_BD in torch.autograd.grad(hard.sum(), units, retain_graph=True):
        assert torch.equal(gradient_BD, torch.zeros_like(gradient_BD))
    soft = torch.stack([*terms.soft_vcl_K, terms.soft_icl]).sum()
    for gradient_BD in torch.autograd.grad(soft, units):
        assert torch.isfinite(gradient_BD).all()


def test_one_class_alone_still_tells_images_apart() -> None:
    """All others are positives: the contrast is least where all embeddings are equal."""
    spread = values(terms_of(circle(FIRST), circle(SECOND), labels=[0] * 4))
    equal = values(terms_of(circle([5.0] * 4), circle([5.0] * 4), labels=[0] * 4))
    assert equal["vcl"] == pytest.approx(2 * math.log(3))
    assert spread["vcl"] > equal["vcl"]


def test_an_unlabelled_image_is_in_the_soft_terms_alone() -> None:
    more = [circle([*degrees, 45.0]) for degrees in (FIRST, SECOND)]
    found = values(terms_of(*more, labels=[*LABELS, -1]))
    without = values(terms_of(circle(FIRST), circle(SECOND)))
    # Its row counts as 0 in the mean over five.
    assert (found["vcl"], found["icl"]) == pytest.approx((0.8 * without["vcl"], 0.8 * without["icl"]))
    assert found["soft_vcl"] != pytest.approx(without["soft_vcl"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_smallest_tau_does_not_overflow(dtype: torch.dtype) -> None:
    """exp(1 / tau) is exp(200)."""
    units = [circle(degrees).to(dtype).requires_grad_() for degrees in (FIRST, SECOND)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = terms_of(*units, tau=0.005)
    total = torch.stack([*terms.vcl_K, *terms.soft_vcl_K, terms.icl, terms.soft_icl]).sum()
    assert total.dtype is torch.float32
    assert math.isfinite(total.item())
    assert all(torch.isfinite(gradient_BD).all() for gradient_BD in torch.autograd.grad(total, units))


def test_columns_of_nothing_have_a_finite_logarithm() -> None:
    columns = Columns(torch.zeros(1, 2, dtype=torch.bool), logarithm(torch.zeros(1, 2)), None)
    scores_BM = random(1, 1, 2, grad=True)
    loss = contrast(scores_BM, columns)
    assert loss.item() == 0.0
    assert torch.equal(torch.autograd.grad(loss, scores_BM)[0], torch.zeros(1, 2).double())


ANSWERS: Final = ([[1.0, 0.0], [0.2, 0.8]], [[0.3, -0.5], [1.5, 0.1]], [[-0.7, 0.4], [0.0, 2.0]])


def answering(count: int) -> tuple[Signals, list[Tensor]]:
    answers = [logits([*rows, *rows], grad=True) for rows in ANSWERS[:count]]
    return embedded([circle(FIRST)] * count, labels=LABELS, answers=answers), answers


def gaps(answers: Sequence[Tensor]) -> list[float]:
    mean_BC = (torch.stack(list(answers)).mean(dim=0) / 3).softmax(dim=-1)
    found = [mean_BC * (mean_BC.log() - (own / 3).log_softmax(dim=-1)) for own in answers]
    return [9 * gap_BC.sum(dim=-1).mean().item() for gap_BC in found]


@pytest.mark.parametrize(
    ("count", "hearers", "heard"),
    [(2, "released", {0, 1}), (2, "all", {0, 1}), (3, "released", {2}), (3, "all", {0, 1, 2})],
)
def test_networks_learn_from_the_mean_of_all_logits(count: int, hearers: str, heard: set[int]) -> None:
    signals, answers = answering(count)
    plain, with_kd = (
        mcl(signals, kd_hearers=KdHearers(hearers), kd_weight=weight)(signals) for weight in (0.0, 2.0)
    )
    expected = gaps(answers)
    names = ["kd", "peer1_kd", "peer2_kd"][:count]
    assert [with_kd.terms[name].item() for name in names] == pytest.approx(expected)
    more = 2 * sum(expected[number] for number in heard)
    assert (with_kd.total - plain.total).item() == pytest.approx(more)
    found, before = (torch.autograd.grad(losses.total, answers) for losses in (with_kd, plain))
    mean_BC = (torch.stack(answers).mean(dim=0) / 3).softmax(dim=-1)
    for number, own_BC in enumerate(answers):  # the mean stands still
        learned_BC = 2 * 3 * ((own_BC / 3).softmax(dim=-1) - mean_BC) / len(own_BC)
        torch.testing.assert_close(found[number] - before[number], (number in heard) * learned_BC)


def test_a_student_alone_or_without_embeddings_is_refused() -> None:
    signals = embedded([circle(FIRST), circle(SECOND)], labels=LABELS)
    objective = mcl(signals)
    with pytest.raises(ValueError, match="hold no peers; train one network or more"):
        objective(embedded([circle(FIRST)], labels=LABELS))
    bare = replace(signals, features={})
    with pytest.raises(ValueError, match="no feature 'embedding'"):
        objective(bare)


def test_the_form_brings_the_tau_of_its_paper() -> None:
    assert MclConfig().tau == 0.1
    assert MclConfig.from_plain({"form": "bank"}).tau == MclConfig(form=MclForm.BANK).tau == 0.07
    assert MclConfig.from_plain({"form": "bank", "tau": 0.2}).tau == 0.2
    moved: Config = MclConfig().with_overrides(form="bank")
    assert moved == MclConfig(form=MclForm.BANK)
    assert MclConfig(tau=0.2).with_overrides(form="bank").tau == 0.2
    assert MclConfig(form=MclForm.BANK).with_overrides(form="batch") == MclConfig()


def test_rows_are_asked_for_and_with_branches_all_stages() -> None:
    assert MclConfig().needed == MclConfig(form=MclForm.BANK).needed == {Need.ROWS}
    assert MclConfig().student_features == ("embedding",)
    assert MclConfig(layers=True).student_features == ("embedding", "stages")
