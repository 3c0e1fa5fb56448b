"""What a step computes: counted by hand here, and nothing of the training is touched by counting it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.unit.trainables.cache.tiny_caches import TinyCache
from tests.unit.trainables.objective_variants import TAUGHT_BANKS, reseeded, staged_network
from tests.unit.trainables.training.small_courses import (
    SHORT,
    VIEWS,
    same_weights,
    separable_data,
    small_course,
    small_student,
    small_workbench,
    untimed,
    weights_of,
)
from trainables.config import CeConfig, CrldConfig, KdConfig, ObjectiveBase, TrainingConfig
from trainables.config.metrics import COMPUTE_OVER_CE, FLOPS_PER_IMAGE
from trainables.config.objectives import AkdConfig, DmlConfig, PskdConfig, TeacherInput
from trainables.data.splits import split_facts
from trainables.models.foreign.copies import copied
from trainables.teacher.online import OnlineTeacher
from trainables.training.compute import Compute, compute_figures, compute_of, cross_entropy_of
from trainables.training.course import Course, Trained
from trainables.training.loop import train
from trainables.training.workbench import Workbench

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES = 3
LINEAR = 2 * 64 * CLASSES
"""Operations of a layer of 64 numbers in and a logit for each class out."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyCache:
    data = separable_data()
    folder = tmp_path_factory.mktemp("lab")
    tiny = TinyCache(folder, data, staged_network(seed=9), split_facts(data), views=VIEWS)
    tiny.build(TAUGHT_BANKS)
    return tiny


def course_of(
    model: nn.Module, objective: ObjectiveBase, *peers: nn.Module, training: TrainingConfig = SHORT
) -> Course:
    networks = (model, *peers)
    return replace(
        small_course(training, objective=objective),
        model=model,
        peers=tuple(map(Trained, peers)),
        fresh=lambda _, number: reseeded(copied(networks[number]), 5),
    )


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES))


def told_by(course: Course, workbench: Workbench) -> list[dict[str, float]]:
    told: list[dict[str, float]] = []
    train(course, workbench, on_epoch=lambda _, metrics: told.append(untimed(metrics)))
    return told


def over_ce(course: Course, workbench: Workbench) -> float:
    own, plain = (compute_of(one, workbench) for one in (course, cross_entropy_of(course)))
    return compute_figures(own, plain)[COMPUTE_OVER_CE]


def test_a_step_is_counted_forward_and_backward() -> None:
    """Images have no gradient, so the first layer's backward pass is one product, every other's two."""
    found = compute_of(course_of(linear(), CeConfig()), small_workbench())
    assert (found.per_image, found.images) == (2 * LINEAR, 40)
    convolution, head = 2 * 9 * 4 * 64, 2 * 256 * CLASSES
    found = compute_of(course_of(small_student(), CeConfig()), small_workbench())
    assert found.per_image == 2 * convolution + 3 * head


def test_what_is_frozen_has_no_gradient_to_compute() -> None:
    frozen = course_of(small_student(), CeConfig(), training=SHORT.with_overrides(freeze=("0", "1")))
    convolution, head = 2 * 9 * 4 * 64, 2 * 256 * CLASSES
    assert compute_of(frozen, small_workbench()).per_image == convolution + 2 * head


def test_an_epoch_of_several_networks_is_as_many_epochs_work() -> None:
    course = course_of(small_student(), DmlConfig(peers=3), small_student(1), small_student(2))
    assert over_ce(course, small_workbench()) == 3.0
    other = course_of(linear(), DmlConfig(), small_student(1))
    expected = compute_of(course_of(small_student(), CeConfig()), small_workbench()).per_image + 2 * LINEAR
    assert compute_of(other, small_workbench()).per_image == expected


@pytest.mark.parametrize(("objective", "times"), [(KdConfig(), 1.0), (CrldConfig(), 2.0)])
def test_each_view_is_a_pass(tiny: TinyCache, objective: ObjectiveBase, times: float) -> None:
    course = course_of(small_student(), objective)
    assert over_ce(course, small_workbench(tiny.data, cache=tiny.open())) == times


def test_each_step_of_an_attack_is_a_forward_pass_and_one_back_to_the_image(tiny: TinyCache) -> None:
    course = course_of(linear(), AkdConfig(steps=3))
    found = compute_of(course, small_workbench(tiny.data, cache=tiny.open()))
    assert found.per_image == (3 * 2 + 2) * LINEAR


@pytest.mark.parametrize(
    "objective", [KdConfig(), AkdConfig(steps=2), AkdConfig(steps=2, teacher_input=TeacherInput.ADVERSARIAL)]
)
def test_the_teacher_is_not_counted_where_it_runs_beside(tiny: TinyCache, objective: ObjectiveBase) -> None:
    live = small_workbench(tiny.data, cache=OnlineTeacher(tiny.live(), VIEWS))
    found = compute_of(course_of(linear(), objective), live)
    steps = objective.attack.steps if objective.attack else 0
    assert found.per_image == (2 * steps + 2) * LINEAR


class Attending(nn.Module):
    """Rows of an image attend to each other; then a layer of all numbers."""

    def __init__(self, *, fused: bool) -> None:
        super().__init__()
        self.mixed = nn.Linear(8, 24)
        self.head = nn.Linear(64, CLASSES)
        self.fused = fused

    def forward(self, images: Tensor) -> Tensor:
        query, key, value = self.mixed(images).chunk(3, dim=-1)
        if self.fused:
            attended = F.scaled_dot_product_attention(query, key, value)
        else:
            attended = (query @ key.transpose(-2, -1) / 8**0.5).softmax(dim=-1) @ value
        logits: Tensor = self.head(attended.flatten(1))
        return logits


def test_attention_is_counted_on_a_cpu_too() -> None:
    by_hand = compute_of(course_of(Attending(fused=False), CeConfig()), small_workbench()).per_image
    product = 2 * 8 * 8 * 8
    assert by_hand == 2 * (2 * 8 * 8 * 24) + 3 * LINEAR + (2 + 4) * product
    # What is fused computes the scores again on its way back.
    fused = compute_of(course_of(Attending(fused=True), CeConfig()), small_workbench()).per_image
    assert fused == by_hand + product


def test_the_size_of_a_batch_counts_for_nothing_and_unlabelled_images_of_an_epoch_do() -> None:
    many = course_of(small_student(), CeConfig(), training=SHORT.with_overrides(batch_size=20))
    few = course_of(small_student(), CeConfig(), training=SHORT.with_overrides(batch_size=4))
    one, other = (compute_of(course, small_workbench()) for course in (many, few))
    assert one.per_image == other.per_image
    assert compute_figures(Compute(10.0, 150), Compute(10.0, 100)) == {
        FLOPS_PER_IMAGE: 10.0,
        COMPUTE_OVER_CE: 1.5,
    }


def test_a_network_without_a_product_has_no_figure() -> None:
    assert compute_figures(Compute(0.0, 10), Compute(0.0, 10)) == {}


def test_a_course_that_makes_no_other_networks_is_refused() -> None:
    with pytest.raises(ValueError, match="makes no other networks"):
        compute_of(small_course(), small_workbench())


def test_a_compiled_network_is_counted_as_the_plain_one() -> None:
    plain = course_of(small_student(), CeConfig())

    def refuse(_: Tensor) -> Tensor:
        raise AssertionError("the compiled network is trained, not counted")

    assert compute_of(replace(plain, forward=refuse), small_workbench()) == compute_of(
        plain, small_workbench()
    )


@pytest.mark.parametrize(
    "objective",
    [CeConfig(), DmlConfig(), PskdConfig(), CrldConfig(), AkdConfig(steps=2, random_start=True)],
    ids=lambda objective: str(objective.name),
)
def test_a_training_is_the_same_to_the_bit_whether_it_was_counted(
    tiny: TinyCache, objective: ObjectiveBase
) -> None:
    ends = []
    for is_counted in (False, True):
        peers = [small_student(1)] * (objective.n_networks - 1)
        training = SHORT.with_overrides(epochs=2, ema=0.9)
        course = course_of(small_student(), objective, *map(copied, peers), training=training)
        workbench = small_workbench(tiny.data, cache=tiny.open())
        torch.manual_seed(1)
        before = weights_of(course.model)
        if is_counted:
            compute_of(course, workbench)
            assert same_weights(weights_of(course.model), before)
            assert all(parameter.grad is None for parameter in course.model.parameters())
        state = torch.random.get_rng_state()
        ends.append(
            (
                told_by(course, workbench),
                state,
                weights_of(course.model),
                [weights_of(p.model) for p in course.peers],
            )
        )
    (told, state, own, peers_own), (other_told, other_state, other, peers_other) = ends
    assert told == other_told
    assert torch.equal(state, other_state)
    assert same_weights(own, other)
    assert all(same_weights(one, two) for one, two in zip(peers_own, peers_other, strict=True))
