"""Attention of maps: worked numbers, what leaves it, sizes that differ, stages, gradients, maps of zeros."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from tests.numerics.representation.relation_rows import drawn, rotation, signals_with
from trainables.config import KdConfig
from trainables.config.objectives import AtConfig, AtForm
from trainables.objectives import AtObjective, KdObjective
from trainables.objectives.representation.at import attention_gap, energy_BHW
from trainables.signals import Losses

# B = samples in the batch, C = channels, H, W = rows and columns of places
DIGITS = 6e-7
FORMS = list(AtForm)
STUDENT_BCHW = torch.tensor([[[[1.0, 2.0], [0.0, 1.0]], [[0.0, 1.0], [2.0, 1.0]]]]).double()
TEACHER_BCHW = torch.tensor(
    [[[[1.0, 1.0], [1.0, 1.0]], [[0.0, 2.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]]]
).double()


def gap(student_BCHW: Tensor, teacher_BCHW: Tensor, form: AtForm = AtForm.BENCHMARK) -> Tensor:
    return attention_gap(energy_BHW(student_BCHW), energy_BHW(teacher_BCHW), form=form)


@pytest.mark.parametrize(("form", "value"), [("benchmark", 0.063222), ("norm", 0.502881)])
def test_the_attention_has_the_worked_values(form: str, value: float) -> None:
    assert gap(STUDENT_BCHW, TEACHER_BCHW, AtForm(form)).item() == pytest.approx(value, abs=DIGITS)


def test_an_energy_is_the_mean_over_channels_of_squares() -> None:
    assert energy_BHW(STUDENT_BCHW).tolist() == [[[0.5, 2.5], [2.0, 1.0]]]


@pytest.mark.parametrize("form", FORMS)
def test_channels_signs_and_a_scale_leave_it_and_places_do_not(form: AtForm) -> None:
    student_BCHW, teacher_BCHW = drawn(0, 3, 4, 5, 6), drawn(1, 3, 7, 5, 6)
    expected = gap(student_BCHW, teacher_BCHW, form)
    turned_BCHW = torch.einsum("bchw,cd->bdhw", student_BCHW, rotation(2, 4))
    for changed_BCHW in (
        student_BCHW[:, [2, 0, 3, 1]],
        turned_BCHW,
        -student_BCHW,
        1e-5 * student_BCHW,
        1e4 * student_BCHW,
        torch.cat([student_BCHW, student_BCHW], dim=1),
    ):
        torch.testing.assert_close(gap(changed_BCHW, teacher_BCHW, form), expected, rtol=1e-9, atol=0)
        own = gap(changed_BCHW, student_BCHW, form)
        torch.testing.assert_close(own, torch.zeros_like(own), rtol=0, atol=1e-12)
    for moved_BCHW in (student_BCHW.flip(-1), student_BCHW + 1):
        assert abs(gap(moved_BCHW, teacher_BCHW, form).item() / expected.item() - 1) > 0.01


@pytest.mark.parametrize("form", FORMS)
def test_the_larger_energy_is_pooled_to_the_smaller_on_either_side(form: AtForm) -> None:
    small_BCHW, large_BCHW = drawn(0, 2, 3, 2, 2), drawn(1, 2, 5, 4, 6)
    pooled_BHW = energy_BHW(large_BCHW).reshape(2, 2, 2, 2, 3).mean(dim=(2, 4))
    expected = attention_gap(energy_BHW(small_BCHW), pooled_BHW, form=form)
    torch.testing.assert_close(gap(small_BCHW, large_BCHW, form), expected)
    torch.testing.assert_close(gap(large_BCHW, small_BCHW, form), expected)


def test_each_side_is_pooled_along_the_dimension_where_it_is_larger() -> None:
    tall_BHW, wide_BHW = energy_BHW(drawn(0, 2, 3, 4, 2)), energy_BHW(drawn(1, 2, 5, 2, 6))
    expected = attention_gap(
        tall_BHW.reshape(2, 2, 2, 2).mean(dim=2),
        wide_BHW.reshape(2, 2, 2, 3).mean(dim=3),
        form=AtForm.BENCHMARK,
    )
    torch.testing.assert_close(attention_gap(tall_BHW, wide_BHW, form=AtForm.BENCHMARK), expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("side", [2, 3, 6])
def test_its_gradient_is_that_of_differences_and_none_reaches_the_teacher(form: AtForm, side: int) -> None:
    student_BCHW = drawn(0, 2, 2, 3, 3).requires_grad_()
    teacher_BHW = energy_BHW(drawn(1, 2, 4, side, side)).requires_grad_()

    def loss(map_BCHW: Tensor) -> Tensor:
        return attention_gap(energy_BHW(map_BCHW), teacher_BHW, form=form)

    assert torch.autograd.gradcheck(loss, student_BCHW, rtol=1e-6, atol=1e-9)
    loss(student_BCHW).backward()  # type: ignore[no-untyped-call]
    assert teacher_BHW.grad is None


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [0.0, 1e-30, 1.0])
def test_flat_maps_and_single_samples_give_finite_losses_and_gradients(form: AtForm, value: float) -> None:
    student_BCHW = torch.full((1, 3, 4, 4), value, requires_grad=True)
    for teacher_BHW in (torch.zeros(1, 4, 4), torch.ones(1, 4, 4), drawn(0, 1, 4, 4).square().float()):
        loss = attention_gap(energy_BHW(student_BCHW), teacher_BHW, form=form)
        (gradient_BCHW,) = torch.autograd.grad(loss, student_BCHW)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient_BCHW).all()


def test_a_map_of_zeros_has_no_attention_anywhere() -> None:
    loss = gap(torch.zeros(1, 2, 2, 2).double(), TEACHER_BCHW)
    assert loss.item() == pytest.approx(1 / 4)


def losses_of(config: AtConfig, sides: tuple[tuple[int, int], ...] = ((8, 8), (4, 4), (2, 4))) -> Losses:
    student, teacher = {}, {}
    for stage, (mine, theirs) in enumerate(sides, start=1):
        student[f"stage{stage}"] = drawn(stage, 4, 2 * stage, mine, mine)
        teacher[f"energy.stage{stage}"] = energy_BHW(drawn(stage + 10, 4, 3, theirs, theirs))
    return AtObjective(config)(signals_with(student, teacher))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stages", ["1,2,3", "2,3", "1"])
def test_the_objective_sums_the_stages_that_are_named(form: AtForm, stages: str) -> None:
    config = AtConfig(stages=stages, form=form, kd_weight=1.0, at_weight=300.0)
    losses = losses_of(config)
    sides = {1: (8, 8), 2: (4, 4), 3: (2, 4)}
    attention = sum(
        gap(drawn(n, 4, 2 * n, sides[n][0], sides[n][0]), drawn(n + 10, 4, 3, sides[n][1], sides[n][1]), form)
        for n in map(int, stages.split(","))
    )
    assert isinstance(attention, Tensor)
    assert losses.terms["attention"].item() == pytest.approx(attention.item(), rel=1e-12)
    weight = 300 if form is AtForm.BENCHMARK else 150  # beta / 2
    signals = signals_with({"x": torch.ones(4, 1).double()}, {})
    kd = KdObjective(KdConfig(ce_weight=1.0, kd_weight=1.0))(signals)
    assert losses.total.item() == pytest.approx(kd.total.item() + weight * attention.item(), rel=1e-12)


def test_maps_of_the_student_and_energies_of_the_teacher_are_asked_for_by_stage() -> None:
    assert AtConfig().student_features == ("stage1", "stage2", "stage3")
    assert AtConfig().teacher_features == ("energy.stage1", "energy.stage2", "energy.stage3")
    assert AtConfig(stages="3,4").student_features == ("stage3", "stage4")
    with pytest.raises(ValueError, match="no feature 'stage3'"):
        losses_of(AtConfig(), sides=((8, 8), (4, 4)))
    assert torch.isfinite(losses_of(AtConfig(stages="1,2"), sides=((8, 8), (4, 4))).total)


@pytest.mark.parametrize("stages", ["", "0", "1,", "1, 2", "2,1", "1,1", "stage1", "100"])
def test_stages_that_are_no_ascending_numbers_are_refused(stages: str) -> None:
    with pytest.raises(ValidationError, match="stages"):
        AtConfig(stages=stages)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_energies_of_a_teacher_in_fp16_change_the_loss_by_less_than_a_hundredth(
    form: AtForm, scale: float
) -> None:
    student_BHW, teacher_BHW = (energy_BHW(drawn(seed, 8, 16, 8, 8, scale=scale)).float() for seed in (0, 1))
    kept = attention_gap(student_BHW, teacher_BHW.half().float(), form=form).item()
    assert kept == pytest.approx(attention_gap(student_BHW, teacher_BHW, form=form).item(), rel=1e-2)


@pytest.mark.parametrize("form", FORMS)
def test_it_is_computed_in_fp32_inside_autocast(form: AtForm) -> None:
    student_BCHW, teacher_BCHW = drawn(0, 4, 3, 6, 6, scale=60), drawn(1, 4, 5, 3, 3, scale=60)
    plain = gap(student_BCHW.float(), teacher_BCHW.float(), form)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = gap(student_BCHW.float(), teacher_BCHW.float(), form)
    assert inside.dtype is torch.float32
    assert inside.item() == plain.item()
    assert inside.item() == pytest.approx(gap(student_BCHW, teacher_BCHW, form).item(), rel=1e-5)
    halves_BCHW = student_BCHW.bfloat16()
    assert (
        gap(halves_BCHW, teacher_BCHW.float(), form).item()
        == gap(halves_BCHW.float(), teacher_BCHW.float(), form).item()
    )
