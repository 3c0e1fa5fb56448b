"""What FitNet, ReviewKD and TaT share: unlabelled images, the order of a batch, what is kept of a course."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest
import torch

from tests.numerics.representation.map_signals import Shapes, built, random_features, signals_with
from trainables.config.objective_base import LabelUse, ObjectiveBase
from trainables.config.objectives import FitnetConfig, ReviewkdConfig, TatConfig
from trainables.signals import Labelling, Signals

SHAPES: Final[Shapes] = {
    "stage1": (2, 4, 4),
    "stage2": (3, 4, 4),
    "last": (3, 4, 4),
    "embedding": (3,),
}
CASES: Final[dict[str, ObjectiveBase]] = {
    "hint": FitnetConfig(),
    "hint of embeddings": FitnetConfig(hint="embedding"),
    "review": ReviewkdConfig(levels=3, teacher_maps="post", warmup_epochs=1),
    "tat": TatConfig(),
    "tat by teacher": TatConfig(orientation="teacher_row", theta="conv"),
}
OWN: Final = {"fitnet": "hint", "reviewkd": "review", "tat": "tat"}


def signals_for(rows: int = 6) -> Signals:
    return signals_with(random_features(1, rows, SHAPES), random_features(20, rows, SHAPES))


def own(config: ObjectiveBase) -> str:
    return OWN[str(config.plain()["name"])]


@pytest.mark.parametrize("case", CASES)
def test_unlabelled_images_are_taught_and_have_no_part_in_the_cross_entropy(case: str) -> None:
    config = CASES[case]
    assert config.uses_label is LabelUse.NONE
    whole = signals_for()
    labels_B = torch.where(torch.arange(6) < 2, whole.labels_B, -1)
    some = replace(whole, labels_B=labels_B, labelling=Labelling(count=2))
    found, full = (built(config, SHAPES, SHAPES)(signals) for signals in (some, whole))
    assert found.terms[own(config)].item() == full.terms[own(config)].item()
    expected = torch.nn.functional.cross_entropy(whole.student["weak"][:2], whole.labels_B[:2])
    assert found.terms["ce"].item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_the_order_of_a_batch_does_not_matter(case: str) -> None:
    order, config, signals = torch.tensor([3, 0, 5, 1, 4, 2]), CASES[case], signals_for()
    moved = Signals(
        student={"weak": signals.student["weak"][order]},
        teacher={"weak": signals.teacher["weak"].each(lambda tensor: tensor[order])},
        labels_B=signals.labels_B[order],
        epoch=1,
        features={"weak": {name: part[order] for name, part in signals.features["weak"].items()}},
    )
    found, expected = (built(config, SHAPES, SHAPES)(given).total for given in (moved, signals))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("case", CASES)
def test_one_class_in_a_batch_gives_a_finite_loss_and_gradient(case: str) -> None:
    signals = replace(signals_for(), labels_B=torch.full((6,), 2))
    objective = built(CASES[case], SHAPES, SHAPES)
    total = objective(signals).total
    assert torch.isfinite(total)
    inputs = [signals.student["weak"], *objective.parameters()]
    assert all(torch.isfinite(part).all() for part in torch.autograd.grad(total, inputs))


@pytest.mark.parametrize("case", CASES)
def test_an_objective_goes_on_from_its_state(case: str) -> None:
    """After a step its batch norm has seen a batch, and its weights have moved."""
    config, signals = CASES[case], signals_for()
    first = built(config, SHAPES, SHAPES)
    optimiser = torch.optim.SGD(first.parameters(), lr=0.01)
    first(signals).total.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    second = built(config, SHAPES, SHAPES)
    assert second(signals).total.item() != first(signals).total.item()
    second.load_state_dict(first.state_dict())
    assert second(signals).total.item() == first(signals).total.item()


@pytest.mark.parametrize("case", CASES)
def test_the_same_seed_makes_the_same_modules_and_another_makes_others(case: str) -> None:
    config, signals = CASES[case], signals_for()
    same = [built(config, SHAPES, SHAPES)(signals).total.item() for _ in range(2)]
    other = built(config, SHAPES, SHAPES, seed=4)(signals).total.item()
    assert same[0] == same[1] != other


@pytest.mark.parametrize("case", CASES)
def test_without_labels_and_soft_targets_the_students_own_answers_are_not_taught(case: str) -> None:
    config = CASES[case]
    alone = config.with_overrides(ce_weight=0.0, kd_weight=0.0)
    assert not alone.learns_classes
    assert config.learns_classes
    assert alone.with_overrides(kd_weight=0.1).learns_classes
    signals = signals_for()
    total = built(alone, SHAPES, SHAPES)(signals).total
    (gradient_BC,) = torch.autograd.grad(total, signals.student["weak"], allow_unused=True)
    assert gradient_BC is None or not gradient_BC.any()
