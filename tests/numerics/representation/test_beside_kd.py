"""Labels, soft targets and an objective's own terms added up: gradients, weights of 0, names."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tests.numerics.representation.relation_rows import STUDENT_LOGITS, drawn, signals_with
from trainables.config.objectives import PktConfig
from trainables.objectives.representation.terms.composition import beside_kd
from trainables.objectives.terms.divergences import kd_divergence_B

# B = samples in the batch, C = classes
LABELS = torch.tensor([0, 1])


@pytest.mark.parametrize("kd_weight", [0.0, 0.5])
def test_the_logits_have_the_gradient_of_labels_and_weighted_soft_targets(kd_weight: float) -> None:
    plain = signals_with({"embedding": drawn(0, 2, 3)}, {"embedding": drawn(1, 2, 5)})
    student_BC = STUDENT_LOGITS.clone().requires_grad_()
    signals = replace(plain, student={"weak": student_BC})
    config = PktConfig(ce_weight=2.0, kd_weight=kd_weight, temperature=3.0)
    losses = beside_kd(signals, config, {})
    kd_B = kd_divergence_B(student_BC, plain.teacher["weak"].logits_BC, temperature=3.0)
    expected = 2 * F.cross_entropy(student_BC, LABELS) + kd_weight * kd_B.mean()
    (found_BC,) = torch.autograd.grad(losses.total, student_BC)
    (wanted_BC,) = torch.autograd.grad(expected, student_BC)
    torch.testing.assert_close(found_BC, wanted_BC)
    assert losses.terms["kd"].item() == pytest.approx(0.554780, abs=6e-7)  # told whatever its weight


def test_own_terms_are_weighted_in_the_total_and_told_as_they_are() -> None:
    signals = signals_with({"embedding": drawn(0, 2, 3)}, {"embedding": drawn(1, 2, 5)})
    own = torch.tensor(3.0, requires_grad=True)
    losses = beside_kd(signals, PktConfig(), {"own": (10.0, own), "other": (0.0, torch.tensor(7.0))})
    assert list(losses.terms) == ["ce", "kd", "own", "other"]
    assert losses.terms["own"].item() == 3.0
    assert not losses.terms["own"].requires_grad
    assert losses.total.item() == pytest.approx(losses.terms["ce"].item() + 30)
    assert torch.autograd.grad(losses.total, own)[0].item() == 10.0
