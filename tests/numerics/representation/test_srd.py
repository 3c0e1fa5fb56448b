"""The teacher's classifier on what a student makes of an image: worked numbers, heads, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.numerics.reference import DIGITS
from tests.numerics.representation.embedding_signals import (
    BIAS,
    EMBEDDING,
    GIVEN,
    TAUGHT,
    TEACHER_LOGITS,
    WEIGHT,
    classifier,
    is_finite,
    numbers,
    random,
    setting_for,
    signals_of,
)
from trainables.config.objectives import SrdConfig
from trainables.errors import TrialFailed
from trainables.objectives import SrdObjective
from trainables.objectives.representation.srd import pooled
from trainables.objectives.representation.terms.distances import classified, squared_distance
from trainables.signals import Labelling, Losses

# B = samples in the batch, C = classes, D = numbers in an embedding, H, W = height and width of a map


def srd(given: Tensor, taught_BD: Tensor | None = None, **fields: Any) -> SrdObjective:
    """On the map where the student's feature has positions."""
    torch.manual_seed(0)
    on = "map" if given.dim() == 4 else "embedding"
    setting = setting_for(
        given,
        numbers(TAUGHT) if taught_BD is None else taught_BD,
        name="last" if on == "map" else EMBEDDING,
        classifier=fields.pop("classifier", classifier()),
    )
    return SrdObjective(SrdConfig(level=on, **fields), setting).to(given.dtype)


def told(objective: SrdObjective, given: Tensor, taught_BD: Tensor | None = None, **more: Any) -> Losses:
    taught_BD = numbers(TAUGHT * 8)[: len(given)].to(given.dtype) if taught_BD is None else taught_BD
    return objective(signals_of(given, taught_BD, name=objective.feature, **more))


def logits_of(embedding: Any, **more: Any) -> Tensor:
    layer = classifier(**more)
    return classified(numbers(embedding), layer.weight_CD, layer.bias_C)


def test_the_logits_of_both_networks_have_the_worked_values() -> None:
    assert logits_of(TAUGHT).tolist() == TEACHER_LOGITS
    assert logits_of(GIVEN).tolist() == [[0.5, 2.0, 0.0], [1.0, 3.0, 1.0]]


def test_both_distances_have_the_worked_values() -> None:
    assert squared_distance(logits_of(GIVEN), logits_of(TAUGHT)).item() == pytest.approx(0.541667, abs=DIGITS)
    assert squared_distance(numbers(GIVEN), numbers(TAUGHT)).item() == pytest.approx(0.375, abs=DIGITS)


def test_the_distance_of_logits_is_the_classifier_of_the_difference_whatever_the_bias() -> None:
    expected = ((numbers(GIVEN) - numbers(TAUGHT)) @ numbers(WEIGHT).T).square().mean()
    for bias in (BIAS, [5.0, -3.0, 100.0]):
        found = squared_distance(logits_of(GIVEN, bias=bias), logits_of(TAUGHT, bias=bias))
        assert found.item() == pytest.approx(expected.item(), rel=1e-12)


def test_what_the_classifier_cannot_see_is_left_to_the_embeddings() -> None:
    weight, bias = [[1.0, 1.0], [2.0, 2.0]], [0.0, 0.0]
    given, taught = [[1.0, 0.0]], [[0.0, 1.0]]
    of_logits = squared_distance(
        logits_of(given, weight=weight, bias=bias), logits_of(taught, weight=weight, bias=bias)
    )
    assert of_logits.item() == 0.0
    assert squared_distance(numbers(given), numbers(taught)).item() == 1.0


def test_an_equal_embedding_pays_nothing() -> None:
    objective = srd(numbers(TAUGHT))
    objective.head = torch.nn.Sequential()
    losses = told(objective, numbers(TAUGHT))
    assert (losses.terms["srd_logits"].item(), losses.terms["srd_embedding"].item()) == (0.0, 0.0)


def test_the_objective_adds_the_worked_values_at_their_weights() -> None:
    objective = srd(numbers(GIVEN), alpha=3.0, beta=10.0, kd_weight=2.0, ce_weight=0.5)
    objective.head = torch.nn.Sequential()
    losses = told(objective, numbers(GIVEN), labels=[0, 1])
    terms = {name: term.item() for name, term in losses.terms.items()}
    expected = {"ce": 0.753109, "kd": 0.611971, "srd_logits": 0.541667, "srd_embedding": 0.375}
    assert terms == pytest.approx(expected, abs=DIGITS)
    total = 0.5 * terms["ce"] + 2 * terms["kd"] + 3 * terms["srd_logits"] + 10 * terms["srd_embedding"]
    assert losses.total.item() == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("change", ["turn", "scale", "rows", "shift"])
def test_each_change_of_the_embedding_is_heard(change: str) -> None:
    given_BD = numbers(GIVEN)
    changed_BD = {
        "turn": given_BD @ numbers([[0.0, -1.0], [1.0, 0.0]]),
        "scale": 2 * given_BD,
        "rows": numbers([[1.0], [3.0]]) * given_BD,
        "shift": given_BD + 0.5,
    }[change]
    for of in (squared_distance, _of_logits):
        assert abs(of(changed_BD, numbers(TAUGHT)) - of(given_BD, numbers(TAUGHT))) > 1e-2


def _of_logits(given_BD: Tensor, taught_BD: Tensor) -> Tensor:
    return squared_distance(logits_of(given_BD.tolist()), logits_of(taught_BD.tolist()))


def test_the_head_on_a_map_is_a_convolution_without_bias_and_the_mean_comes_last() -> None:
    given = random(1, 2, 3, 4, 5)
    objective = srd(given).eval()
    assert [type(layer).__name__ for layer in objective.head] == ["Conv2d", "BatchNorm", "ReLU"]
    assert {name: tuple(p.shape) for name, p in objective.named_parameters()} == {
        "head.0.weight": (2, 3, 1, 1),
        "head.1.weight": (2,),
        "head.1.bias": (2,),
    }
    weight = objective.get_parameter("head.0.weight")[:, :, 0, 0]
    seen_BHWD = (given.permute(0, 2, 3, 1) @ weight.T / (1 + 1e-5) ** 0.5).relu()
    expected = squared_distance(seen_BHWD.mean(dim=(1, 2)), numbers(TAUGHT))
    assert told(objective, given).terms["srd_embedding"].item() == pytest.approx(expected.item(), rel=1e-9)


def test_embeddings_are_their_own_mean() -> None:
    assert torch.equal(pooled(numbers(GIVEN)), numbers(GIVEN))
    assert pooled(torch.arange(8.0).view(1, 2, 2, 2)).tolist() == [[1.5, 5.5]]


@pytest.mark.parametrize("activation", ["relu", "none"])
@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2, 2)], ids=["embedding", "map"])
def test_the_gradient_is_that_of_differences(shape: tuple[int, ...], activation: str) -> None:
    given = random(1, *shape, grad=True)
    objective = srd(given, activation=activation, kd_weight=1.0)
    assert torch.autograd.gradcheck(lambda x: told(objective, x).total, given, rtol=1e-6, atol=1e-8)


def test_without_relu_the_teachers_negative_numbers_can_be_met() -> None:
    given_BD, taught_BD = random(1, 16, 3), -random(2, 16, 2).abs()
    for activation, least in (("relu", 0.0), ("none", -9.0)):
        objective = srd(given_BD, activation=activation)
        seen_BD = pooled(objective.head(given_BD))
        assert (seen_BD.min() >= least) and (activation == "relu" or seen_BD.min() < -0.1)
        assert told(objective, given_BD, taught_BD).total.isfinite()


def test_the_classifier_is_bitwise_the_same_after_a_step_and_no_gradient_reaches_it() -> None:
    given = random(1, 4, 3, 2, 2, grad=True)
    layer = classifier()
    layer.weight_CD.requires_grad_()
    objective = srd(given, classifier=layer)
    optimiser = torch.optim.SGD(objective.parameters(), lr=0.1, weight_decay=0.1)
    taught_BD = random(2, 4, 2, grad=True)
    told(objective, given, taught_BD).total.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    assert layer.weight_CD.grad is None
    assert taught_BD.grad is None
    assert given.grad is not None
    assert torch.equal(objective.classifier.weight_CD, numbers(WEIGHT))
    assert torch.equal(objective.classifier.bias_C, numbers(BIAS))


def test_the_state_holds_the_head_and_not_the_classifier() -> None:
    names = {"0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var"}
    assert srd(random(1, 2, 3, 2, 2)).state_dict().keys() == {f"head.{name}" for name in names}


def test_unlabelled_samples_count_for_both_distances_and_not_for_the_labels() -> None:
    given = random(1, 3, 3, 2, 2)
    objective = srd(given).eval()
    part = told(objective, given, labels=[1, 2, -1], labelling=Labelling(2))
    whole = told(objective, given, labels=[1, 2, 0])
    for name in ("srd_logits", "srd_embedding"):
        assert part.terms[name].item() == whole.terms[name].item()
    assert part.terms["ce"].item() != whole.terms["ce"].item()
    alone = told(objective, given[:2], labels=[1, 2])
    assert part.terms["ce"].item() == alone.terms["ce"].item()


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1), (2, 3, 1, 1)])
def test_single_values_a_channel_and_two_classes_have_a_finite_gradient(shape: tuple[int, ...]) -> None:
    given = random(1, *shape, grad=True)
    two = classifier(weight=WEIGHT[:2], bias=BIAS[:2])
    objective = srd(given, classifier=two)
    own_BC = random(3, shape[0], 2, grad=True)
    losses = told(objective, given, own_BC=own_BC, teacher_BC=random(4, shape[0], 2), labels=[1] * shape[0])
    assert is_finite(losses.total, [given, own_BC, *objective.parameters()])


def test_autocast_changes_nothing() -> None:
    given = random(1, 8, 3, 2, 2, dtype=torch.float32)
    objective = srd(given)
    plain = told(objective, given).total
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = told(objective, given).total
    assert half.dtype is torch.float32
    assert half.item() == plain.item()


def test_the_order_of_samples_does_not_matter() -> None:
    given, taught_BD, order = random(1, 4, 3, 2, 2), random(2, 4, 2), torch.tensor([2, 0, 3, 1])
    objective = srd(given)
    logits_BC, labels = random(3, 4, 3), [0, 1, 2, 1]
    one = told(objective, given, taught_BD, own_BC=logits_BC, teacher_BC=-logits_BC, labels=labels)
    other = told(
        objective,
        given[order],
        taught_BD[order],
        own_BC=logits_BC[order],
        teacher_BC=-logits_BC[order],
        labels=[labels[row] for row in order],
    )
    assert other.total.item() == pytest.approx(one.total.item(), rel=1e-12)


@pytest.mark.parametrize(
    ("on", "shapes", "feature"),
    [
        ("auto", {"last": (3, 2, 2)}, "last"),
        ("auto", {"last": (3, 2, 2), "embedding": (3,)}, "last"),
        ("auto", {"embedding": (3,)}, "embedding"),
        ("embedding", {"last": (3, 2, 2), "embedding": (3,)}, "embedding"),
    ],
)
def test_the_map_is_taken_where_the_student_has_one_unless_the_option_says_else(
    on: str, shapes: dict[str, tuple[int, ...]], feature: str
) -> None:
    given = random(1, 2, *shapes[feature])
    setting = setting_for(given, numbers(TAUGHT), student_shapes=shapes)
    objective = SrdObjective(SrdConfig(level=on), setting).double()
    assert objective.feature == feature
    assert told(objective, given).total.isfinite()


def test_the_features_are_asked_for_in_this_order() -> None:
    asked = {on: SrdConfig(level=on).student_features for on in ("auto", "map", "embedding")}
    assert asked == {"auto": ("last|embedding",), "map": ("last",), "embedding": ("embedding",)}


def test_what_is_impossible_is_refused_by_name() -> None:
    tokens, taught_BD = random(1, 2, 7, 3), numbers(TAUGHT)
    for on, name, message in (
        ("map", "last", r"has the shape \(7, 3\), not channels, .* set objective srd's `level: embedding`"),
        ("embedding", EMBEDDING, r"has the shape \(7, 3\) for a sample; .* or set `level: map`"),
    ):
        with pytest.raises(TrialFailed, match=message):
            SrdObjective(SrdConfig(level=on), setting_for(tokens, taught_BD, name=name))
    with pytest.raises(TrialFailed, match="embedding has 5 numbers, its classifier takes 2"):
        srd(random(1, 2, 3), random(2, 2, 5))
    with pytest.raises(ValueError, match="srd judges by the teacher's last linear layer"):
        srd(random(1, 2, 3), classifier=None)
