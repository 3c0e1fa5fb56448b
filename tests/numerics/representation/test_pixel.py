"""Pixel Distillation: worked numbers, the size of what is drawn, what learns, and an assistant's maps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.numerics.reference import DIGITS
from trainables.config import KdConfig, Need
from trainables.config.representation.inputs import PixelConfig
from trainables.errors import TrialFailed
from trainables.objectives import KdObjective
from trainables.objectives.representation.pixel import (
    PixelObjective,
    SuperResolution,
    absolute_difference,
    enlarged_difference,
)
from trainables.signals import Labelling, Setting, Signals, TeacherSignal

# B = samples in the batch, C = classes or channels, H, W = height and width
ZS = [[1.0, 0.0, -1.0], [0.0, 0.0, 0.0]]
ZT = [[2.0, 1.0, 0.0], [0.0, 3.0, 0.0]]
MAP = [[1.0, -2.0], [0.0, 4.0]]
IMAGE = [[1.0, 0.0], [0.5, 2.0]]


def exact(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(
    *, map_shape: tuple[int, ...] = (5, 3, 3), image_shape: tuple[int, int, int] = (1, 6, 6), **fields: Any
) -> PixelObjective:
    setting = Setting(
        *(8, 3, 5),
        student_shapes={"first_conv": map_shape, "last": (4, 2, 2)},
        teacher_shapes={"last": (4, 4, 4)},
        image_shape=image_shape,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return PixelObjective(PixelConfig(**fields), setting).double()


def signals_of(size: int = 2, **more: Any) -> Signals:
    teacher = TeacherSignal(exact(ZT)[:size], torch.ones(size), {"last": random(size, 4, 4, 4, seed=3)})
    features = {
        "first_conv": random(size, 5, 3, 3).requires_grad_(),
        "last": random(size, 4, 2, 2, seed=1).requires_grad_(),
    }
    return Signals(
        student={"weak": exact(ZS)[:size].requires_grad_()},
        teacher={"weak": teacher},
        labels_B=torch.tensor([0, 1][:size]),
        **{
            "epoch": 1,
            "features": {"weak": features},
            "images": {"weak": random(size, 1, 6, 6, seed=2)},
            **more,
        },
    )


def test_pixels_are_shuffled_row_by_row() -> None:
    """Channels [0, 1, 2, 3] of a single position become [[0, 1], [2, 3]]."""
    draw = SuperResolution((4, 1, 1), (1, 2, 2)).double()
    draw.spread.weight.data = torch.eye(4, dtype=torch.float64)[:, :, None, None]
    channels_BCHW = exact([0.0, 1.0, 2.0, 3.0])[None, :, None, None]
    assert draw(channels_BCHW).squeeze().tolist() == [[0.0, 1.0], [2.0, 3.0]]


def test_a_drawn_image_has_the_worked_values_and_difference() -> None:
    draw = SuperResolution((1, 2, 2), (1, 2, 2)).double()
    draw.spread.weight.data.fill_(1.0)
    drawn_BCHW = draw(exact(MAP)[None, None])
    assert drawn_BCHW.squeeze().tolist() == [[1.0, -0.5], [0.0, 4.0]]  # the slope is 0.25 at first
    assert absolute_difference(drawn_BCHW, exact(IMAGE)[None, None]).item() == pytest.approx(0.75, abs=DIGITS)


def test_the_loss_has_the_worked_value() -> None:
    objective = made(map_shape=(1, 2, 2), image_shape=(1, 2, 2))
    assert objective.draw is not None
    objective.draw.spread.weight.data.fill_(1.0)
    map_BCHW, image_BCHW = exact([[MAP], [MAP]]), exact([[IMAGE], [IMAGE]])
    signals = signals_of(features={"weak": {"first_conv": map_BCHW}}, images={"weak": image_BCHW})
    losses = objective(signals)
    assert losses.terms["image"].item() == pytest.approx(0.75, abs=DIGITS)
    answers = 0.1 * losses.terms["ce"].item() + 0.9 * losses.terms["kd"].item()
    assert answers == pytest.approx(0.573152, abs=DIGITS)
    assert losses.total.item() == pytest.approx(38.073152, abs=DIGITS)


def test_without_its_image_it_is_plain_kd_and_asks_for_nothing() -> None:
    config = PixelConfig(eta=0.0)
    assert (config.needed, config.student_features, config.teacher_features) == (frozenset(), (), ())
    signals = replace(signals_of(), images={}, features={})
    losses = PixelObjective(config, Setting(8, 3, 5))(signals)
    expected = KdObjective(KdConfig())(signals)
    assert losses.total.item() == expected.total.item()
    assert losses.terms.keys() == expected.terms.keys()


def test_it_asks_for_what_it_weighs() -> None:
    config = PixelConfig(feature_weight=1.0)
    assert config.needed == {Need.IMAGES}
    assert (config.student_features, config.teacher_features) == (("first_conv", "last"), ("last",))
    assert PixelConfig(eta=0.0, feature_weight=1.0).student_features == ("last",)


@pytest.mark.parametrize(
    ("map_shape", "image_shape", "scale"),
    [
        ((64, 28, 28), (3, 224, 224), 8),
        ((8, 15, 15), (3, 224, 224), 15),  # 225 is cut
        ((8, 5, 5), (1, 28, 28), 6),
        ((8, 28, 28), (1, 28, 28), 1),
        ((8, 9, 14), (3, 30, 28), 4),
        ((8, 40, 40), (1, 28, 28), 1),  # a map that is larger than the image
    ],
)
def test_what_is_drawn_is_exactly_of_the_images_size(
    map_shape: tuple[int, int, int], image_shape: tuple[int, int, int], scale: int
) -> None:
    draw = SuperResolution(map_shape, image_shape)
    assert draw.scale == scale
    assert draw(torch.zeros(2, *map_shape)).shape == (2, *image_shape)


def test_the_papers_layers_have_its_parameters_and_a_slope_for_each_colour() -> None:
    draw = SuperResolution((64, 28, 28), (3, 224, 224))
    assert sum(parameter.numel() for parameter in draw.parameters()) == 12_291
    assert draw.activate.weight.tolist() == [0.25] * 3


def test_the_image_teaches_the_first_convolution_and_what_draws_and_stays_itself() -> None:
    objective, signals = made(), signals_of()
    images_BCHW = signals.images["weak"].requires_grad_()
    torch.autograd.backward([objective(signals).total])
    assert images_BCHW.grad is None
    for tensor in (signals.features["weak"]["first_conv"], *objective.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() > 0


def test_gradients_are_those_of_finite_differences() -> None:
    objective, signals = made(feature_weight=2.0), signals_of()

    def total(student_BC: Tensor, first_BCHW: Tensor, last_BCHW: Tensor, _weight: Tensor) -> Tensor:
        features = {"weak": {"first_conv": first_BCHW, "last": last_BCHW}}
        return objective(replace(signals, student={"weak": student_BC}, features=features)).total

    assert objective.draw is not None
    given = (signals.student["weak"], *signals.features["weak"].values(), objective.draw.spread.weight)
    assert torch.autograd.gradcheck(total, given, rtol=1e-6, atol=1e-8)


def test_an_assistants_map_is_met_at_its_own_size_with_corners_on_corners() -> None:
    """[[0, 2], [4, 6]] enlarged to 3x3 is [[0, 1, 2], [2, 3, 4], [4, 5, 6]]."""
    small_BCHW = exact([[[[0.0, 2.0], [4.0, 6.0]]]])
    large_BCHW = exact([[[[0.0, 1.0, 2.0], [2.0, 3.0, 4.0], [4.0, 5.0, 9.0]]]])
    assert enlarged_difference(small_BCHW, large_BCHW).item() == pytest.approx(9 / 9, rel=1e-12)


def test_an_assistants_map_is_weighed_with_the_rest() -> None:
    signals = signals_of()
    losses = made(feature_weight=2.0, eta=3.0)(signals)
    last, teacher = signals.features["weak"]["last"], signals.teacher["weak"].features["last"]
    assert losses.terms["feature"].item() == enlarged_difference(last, teacher).item()
    weights = {"ce": 0.1, "kd": 0.9, "image": 3.0, "feature": 2.0}
    expected = sum(weight * losses.terms[name].item() for name, weight in weights.items())
    assert losses.total.item() == pytest.approx(expected, rel=1e-12)


def test_maps_of_other_channels_are_refused_with_both_numbers() -> None:
    setting = Setting(8, 3, 5, student_shapes={"last": (4, 2, 2)}, teacher_shapes={"last": (16, 4, 4)})
    with pytest.raises(TrialFailed, match=r"the student's has 4 channels, the teacher's 16; .* assistant"):
        PixelObjective(PixelConfig(eta=0.0, feature_weight=1.0), setting)


def test_what_was_made_for_other_images_refuses_them() -> None:
    signals = replace(signals_of(), images={"weak": random(2, 1, 8, 8)})
    with pytest.raises(ValueError, match=r"drawn \(2, 1, 6, 6\) and images \(2, 1, 8, 8\) differ in shape"):
        made()(signals)


def test_signals_without_images_and_a_setting_without_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="serve it signals with images"):
        made()(replace(signals_of(), images={}))
    with pytest.raises(ValueError, match="made for the shapes of image and first_conv"):
        PixelObjective(PixelConfig(), Setting(8, 3, 5))
    with pytest.raises(ValueError, match=r"a feature of shape \(7,\) is no map"):
        SuperResolution((7,), (1, 6, 6))


def test_one_sample_has_finite_losses_and_gradients() -> None:
    signals = signals_of(1)
    losses = made(feature_weight=1.0)(signals)
    torch.autograd.backward([losses.total])
    assert losses.total.isfinite()
    for tensor in (signals.student["weak"], *signals.features["weak"].values()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


def test_images_in_fp32_are_compared_in_fp32_under_autocast() -> None:
    """The loop calls objectives outside autocast; what is compared is fp32 in any case."""
    drawn_BCHW, image_BCHW = random(2, 1, 6, 6).float(), random(2, 1, 6, 6, seed=1).float()
    plain = absolute_difference(drawn_BCHW, image_BCHW)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = absolute_difference(drawn_BCHW, image_BCHW)
    assert under.dtype is torch.float32
    assert under.item() == plain.item()


def test_unlabelled_images_are_drawn_too() -> None:
    plain, objective = signals_of(), made()
    losses = objective(replace(plain, labels_B=torch.full((2,), -1), labelling=Labelling(0)))
    assert losses.terms["ce"].item() == 0.0
    for name in ("kd", "image"):
        assert losses.terms[name].item() == objective(plain).terms[name].item()
