"""AKD's teacher asked about the adversarial images themselves: what is served, and whole courses with it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.unit.trainables.cache.tiny_caches import TinyCache
from tests.unit.trainables.training.small_courses import (
    CLASSES,
    CPU,
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
from trainables.config import CeConfig, KdConfig, Need, ObjectiveBase, TrainingPrecision
from trainables.config.objectives import AkdConfig, TeacherInput
from trainables.data.splits import split_facts
from trainables.errors import CacheError, TrialFailed
from trainables.evaluation.attacks import Attacker
from trainables.models.modes import evaluating
from trainables.objectives import AkdObjective
from trainables.signals import Signals
from trainables.teacher.live import LiveTeacher
from trainables.teacher.online import OnlineTeacher
from trainables.training.course import Course
from trainables.training.learners.answers import Asked
from trainables.training.loop import train
from trainables.training.ranks import Share
from trainables.training.step_inputs import StepInputs
from trainables.training.workbench import Workbench

pytestmark = pytest.mark.usefixtures("one_thread")

# B = samples in the batch, C = classes

ROWS_B: Final = torch.tensor([5, 0, 17, 40, 23, 8, 11, 2, 30])
TOGETHER: Final = 4  # rows in a forward pass of the teacher: the last one is smaller
SEED: Final = 12
TWO: Final = SHORT.with_overrides(epochs=2)
STRONG: Final[dict[str, Any]] = {"epsilon": 48.0, "step": 16.0, "steps": 3}


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    """A teacher that knows its task, so that an attack on the student changes what it says."""
    model = small_student(seed=9)
    train(Course(model, CeConfig(), SHORT, 1), small_workbench(), on_epoch=lambda *_: None)
    model.zero_grad(set_to_none=True)
    return model


def online_bench(teacher: nn.Module) -> Workbench:
    data = separable_data()
    live = LiveTeacher(teacher, data, seed=7, batch_size=TOGETHER, device=CPU)
    return small_workbench(data, cache=OnlineTeacher(live, VIEWS))


def adversarial(**fields: Any) -> AkdConfig:
    return AkdConfig(teacher_input=TeacherInput.ADVERSARIAL, **fields)


def served(
    config: ObjectiveBase,
    workbench: Workbench,
    model: nn.Module,
    precision: TrainingPrecision = TrainingPrecision.FP32,
) -> Signals:
    """The signals of a step in training mode, with random starts and dropout of a fixed seed."""
    serving = StepInputs(config, workbench, model.train())
    torch.manual_seed(SEED)
    return serving.signals(Asked(model, torch.contiguous_format, precision), 2, Share(ROWS_B, 1.0))


def said(teacher: nn.Module, images: Tensor) -> Tensor:
    """The teacher's logits, asked directly in the batches of the online teacher."""
    with evaluating(teacher), torch.no_grad():
        parts = [
            teacher(part.contiguous(memory_format=torch.channels_last))
            for part in torch.split(images, TOGETHER)
        ]
    return torch.cat(parts)


def attacked(config: AkdConfig, workbench: Workbench, model: nn.Module, teacher: nn.Module) -> Tensor:
    """What the student sees in `served`, computed beside it; leaves the generator where the attack does."""
    images = workbench.images("weak", 2, ROWS_B)
    share = config.attack.teacher_share
    one_hot_BC = F.one_hot(workbench.labels(ROWS_B), len(CLASSES)).float()
    target_BC = (1 - share) * one_hot_BC + share * said(teacher, images).softmax(dim=-1)
    data = workbench.data
    torch.manual_seed(SEED)
    with evaluating(model):
        return Attacker(config.attack, mean=data.mean, std=data.std, device=CPU).attacked(
            model, images, target_BC
        )


def course_of(
    workbench: Workbench, config: ObjectiveBase
) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """The student's weights at the end, and the figures of each epoch."""
    told: list[dict[str, float]] = []
    course = small_course(TWO, objective=config)
    train(course, workbench, on_epoch=lambda _, metrics: told.append(untimed(metrics)))
    return weights_of(course.model), told


def test_the_default_is_the_view_and_changes_no_digest() -> None:
    fields = {
        "name": "akd",
        "teacher_share": 0.5,
        "epsilon": 8.0,
        "step": 2.0,
        "steps": 10,
        "random_start": True,
        "attack_target": "labels",
    }
    assert AkdConfig().plain() == AkdConfig(teacher_input=TeacherInput.VIEW).plain() == fields
    # The digests of the version before this option.
    assert AkdConfig().digest() == "6f1fa1683d9da24af3cccb6b12e08fc2d347fe8942bb26a58f8cf10b97becbbe"
    mixture = AkdConfig(steps=2, attack_target="mixture")
    assert mixture.digest() == "57f732dbca522958007ebab9c9cf6e767bbba4660fc3a9f0505391519435dd2e"


def test_the_other_input_is_another_objective_and_comes_back_from_plain_data() -> None:
    config = adversarial()
    assert config.plain() == {**AkdConfig().plain(), "teacher_input": "adversarial"}
    assert AkdConfig.from_plain(config.plain()) == config
    assert config.digest() != AkdConfig().digest()


def test_only_the_adversarial_image_needs_a_teacher_beside_the_student() -> None:
    assert AkdConfig().needed == {Need.ATTACK}
    assert adversarial().needed == {Need.ATTACK, Need.ONLINE_TEACHER}


@pytest.mark.parametrize("attack_target", ["labels", "mixture"])
def test_a_step_has_the_loss_and_gradient_of_the_formula(teacher: nn.Module, attack_target: str) -> None:
    config = adversarial(teacher_share=0.25, attack_target=attack_target, **STRONG)
    workbench, model, twin = online_bench(teacher), small_student(), small_student()
    signals = served(config, workbench, model)
    AkdObjective(config)(signals).total.backward()  # type: ignore[no-untyped-call]

    shown = attacked(config, workbench, twin, teacher)
    teacher_BC = said(teacher, shown)
    target_BC = 0.75 * F.one_hot(workbench.labels(ROWS_B), len(CLASSES)) + 0.25 * teacher_BC.softmax(dim=-1)
    student_BC = twin.train()(shown)
    (-(target_BC * student_BC.log_softmax(dim=-1)).sum(dim=-1).mean()).backward()

    assert torch.equal(signals.teacher["weak"].logits_BC, teacher_BC)
    assert torch.equal(signals.student["weak"], student_BC)
    for mine, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-5, atol=1e-7)
    view_BC = said(teacher, workbench.images("weak", 2, ROWS_B))
    assert (teacher_BC - view_BC).abs().max() > 0.1  # the attack is one that the teacher notices


def test_an_attack_on_the_mixture_takes_the_teachers_answer_to_the_view(teacher: nn.Module) -> None:
    """The same images with either input: what the attack makes cannot be in what it leads away from."""
    fields = {"attack_target": "mixture", "teacher_share": 0.75, **STRONG}
    students = [
        served(config, online_bench(teacher), small_student()).student["weak"]
        for config in (AkdConfig(**fields), adversarial(**fields), adversarial(**STRONG))
    ]
    assert torch.equal(students[0], students[1])
    assert not torch.equal(students[0], students[2])


def test_the_teachers_answer_is_fp32_without_gradient_and_with_its_confidence(teacher: nn.Module) -> None:
    signal = served(adversarial(**STRONG), online_bench(teacher), small_student())
    heard = signal.teacher["weak"]
    assert not heard.features  # which this objective did not ask for
    assert heard.logits_BC.dtype == heard.confidence_B.dtype == torch.float32
    assert not heard.logits_BC.requires_grad
    torch.testing.assert_close(heard.confidence_B, heard.logits_BC.softmax(dim=-1).amax(dim=-1))


def test_a_student_in_bf16_leaves_the_teacher_in_its_own_precision(teacher: nn.Module) -> None:
    unchanged = adversarial(epsilon=0.0)
    workbench = online_bench(teacher)
    signals = served(unchanged, workbench, small_student(), TrainingPrecision.BF16)
    student_BC = served(unchanged, workbench, small_student()).student["weak"]
    assert not torch.equal(signals.student["weak"], student_BC)
    assert torch.equal(signals.teacher["weak"].logits_BC, workbench.teacher("weak", 2, ROWS_B).logits_BC)


@pytest.mark.parametrize("bank", ["weak", "strong"])
def test_of_a_views_own_images_the_teacher_says_what_it_says_of_the_view(
    teacher: nn.Module, bank: str
) -> None:
    workbench = online_bench(teacher)
    view = workbench.teacher(bank, 2, ROWS_B, ("embedding",))
    images = workbench.said.about(workbench.images(bank, 2, ROWS_B), ROWS_B, ("embedding",))
    assert torch.equal(view.logits_BC, images.logits_BC)
    assert torch.equal(view.confidence_B, images.confidence_B)
    assert "embedding" in view.features
    assert "embedding" in images.features
    assert torch.equal(view.features["embedding"], images.features["embedding"])


def test_without_an_attack_both_inputs_are_one_course(teacher: nn.Module) -> None:
    course = course_of(online_bench(teacher), AkdConfig(epsilon=0.0))
    other = course_of(online_bench(teacher), adversarial(epsilon=0.0))
    assert same_weights(course[0], other[0])
    assert course[1] == other[1]


def test_without_a_share_of_the_teacher_both_inputs_are_one_course(teacher: nn.Module) -> None:
    weights, told = course_of(online_bench(teacher), AkdConfig(teacher_share=0.0, **STRONG))
    other_weights, other_told = course_of(online_bench(teacher), adversarial(teacher_share=0.0, **STRONG))
    assert same_weights(weights, other_weights)
    # What the teacher says is told, though it has no share.
    soft, other_soft = ([metrics.pop("train/soft") for metrics in t] for t in (told, other_told))
    assert told == other_told
    assert soft != other_soft


@pytest.mark.parametrize("attack_target", ["labels", "mixture"])
def test_a_course_trains_with_the_teacher_at_its_side_and_leaves_it_as_it_was(
    teacher: nn.Module, attack_target: str
) -> None:
    before, workbench = weights_of(teacher), online_bench(teacher)
    config = adversarial(attack_target=attack_target, **STRONG)
    weights, told = course_of(workbench, config)
    assert [set(metrics) >= {"train/soft", "selection/accuracy_under_attack"} for metrics in told] == [
        True
    ] * 2
    assert all(math.isfinite(value) for metrics in told for value in metrics.values())
    assert same_weights(before, weights_of(teacher))
    assert not teacher.training
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert same_weights(weights, course_of(online_bench(teacher), config)[0])
    of_views = config.with_overrides(teacher_input="view")
    assert not same_weights(weights, course_of(workbench, of_views)[0])


def test_the_control_without_a_teacher_trains_at_the_same_workbench(teacher: nn.Module) -> None:
    for config in (CeConfig(), KdConfig()):
        assert len(course_of(online_bench(teacher), config)[1]) == TWO.epochs


def test_a_workbench_without_a_live_teacher_fails_the_trial_with_what_to_set(tmp_path: Path) -> None:
    data = separable_data()
    tiny = TinyCache(tmp_path, data, small_student(seed=9), split_facts(data), views=VIEWS)
    tiny.build()
    wanted = r"no cache holds; .*\(cache: \{online: true\}\), or set teacher_input to view"
    for workbench in (small_workbench(), small_workbench(data, cache=tiny.open())):
        with pytest.raises(TrialFailed, match=wanted):
            train(small_course(TWO, objective=adversarial()), workbench, on_epoch=lambda *_: None)
        with pytest.raises(TrialFailed, match=wanted):
            workbench.said.about(workbench.images("weak", 1, ROWS_B), ROWS_B)


def test_answers_that_are_not_finite_are_refused_with_the_images_they_were_given_to(
    teacher: nn.Module,
) -> None:
    workbench = online_bench(teacher)
    images = workbench.images("weak", 1, ROWS_B)
    images[1] = float("nan")
    with pytest.raises(CacheError, match=r"images as the student sees them: logits are not finite"):
        workbench.said.about(images, ROWS_B)
