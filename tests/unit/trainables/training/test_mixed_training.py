"""Students of mixed images: the labels that they hear of, and a cache that says what the teacher says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.unit.trainables.cache.tiny_caches import TinyCache
from tests.unit.trainables.training.small_courses import (
    CLASSES,
    CPU,
    CROP,
    SHORT,
    same_weights,
    separable_data,
    small_student,
    untimed,
    weights_of,
)
from trainables.config import BankConfig, CeConfig, KdConfig, ObjectiveBase, Precision, Recipe, ViewsConfig
from trainables.config.views import (
    CutmixStep,
    MixupStep,
    RandomResizedCropStep,
    RotationStep,
    TrivialAugmentStep,
)
from trainables.data.splits import split_facts
from trainables.objectives.terms.divergences import confidence_B
from trainables.signals import TeacherSignal
from trainables.teacher.alignment_proof import prove_alignment
from trainables.training.course import Course
from trainables.training.loop import train
from trainables.training.workbench import Workbench
from trainables.views.showing import show

pytestmark = pytest.mark.usefixtures("one_thread")

MIXED: Recipe = (CROP, CutmixStep(op="cutmix"), MixupStep(op="mixup", alpha=0.4))
RECIPES: dict[str, Recipe] = {
    "mixed": MIXED,
    "resized": (RandomResizedCropStep(op="random_resized_crop"), TrivialAugmentStep(op="trivial_augment")),
    "turned": (RotationStep(op="rotation"), CROP),
}
ROWS = torch.tensor([43, 0, 17, 17, 5])
SEED = 7
BRIEF = SHORT.with_overrides(epochs=2)


def views(recipe: Recipe) -> ViewsConfig:
    return ViewsConfig(weak=BankConfig(recipe=recipe, views=BRIEF.epochs), strong=BankConfig(recipe=MIXED))


def workbench_of(recipe: Recipe, **options: object) -> Workbench:
    settings: dict[str, object] = {"view_seed": SEED, "device": CPU} | options
    return Workbench(separable_data(), views(recipe), **settings)  # type: ignore[arg-type]


class OnlineWorkbench(Workbench):
    """Asks the teacher about whole views, in the batches in which the cache asked."""

    def __init__(self, recipe: Recipe, teacher: nn.Module) -> None:
        super().__init__(separable_data(), views(recipe), view_seed=SEED, device=CPU)
        self._live = teacher.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    def teacher(self, bank: str, epoch: int, rows_B: Tensor, *_: object, **__: object) -> TeacherSignal:
        # Shards of 16 rows, in batches of 7.
        shards = torch.split(torch.arange(self.n_train), 16)
        batches = [part for shard in shards for part in torch.split(shard, 7)]
        shown = [
            self.images(bank, epoch, rows).contiguous(memory_format=torch.channels_last) for rows in batches
        ]
        with torch.no_grad():
            logits_BC = torch.cat([self._live(images) for images in shown])[rows_B]
        return TeacherSignal(logits_BC, confidence_B(logits_BC))


def trajectory(
    workbench: Workbench, objective: ObjectiveBase
) -> list[tuple[dict[str, Tensor], dict[str, float]]]:
    """Weights and metrics after each epoch."""
    course = Course(small_student(), objective, BRIEF, 3)
    points: list[tuple[dict[str, Tensor], dict[str, float]]] = []
    train(course, workbench, on_epoch=lambda _, m: points.append((weights_of(course.model), untimed(m))))
    return points


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_cached_training_is_online_training_bit_for_bit(recipe: Recipe, tmp_path: Path) -> None:
    data, teacher = separable_data(), small_student(seed=9)
    tiny = TinyCache(
        tmp_path, data, teacher, split_facts(data), views=views(recipe), precision=Precision.FP32, seed=SEED
    )
    tiny.build(("weak",))
    reader = tiny.open()
    objective = KdConfig(temperature=2.0, ce_weight=1.0, kd_weight=3.0)
    cached = trajectory(workbench_of(recipe, cache=reader), objective)
    online = trajectory(OnlineWorkbench(recipe, teacher), objective)
    assert len(cached) == len(online) == BRIEF.epochs
    for (weights, metrics), (other_weights, other_metrics) in zip(cached, online, strict=True):
        assert same_weights(weights, other_weights)
        assert metrics == other_metrics
    assert prove_alignment(reader, data, teacher, tiny.views, SEED, banks=("weak",)).pairs == 64


@pytest.mark.parametrize("bank", ["weak", "strong"])
@pytest.mark.parametrize("budget", [0, 1 << 20])
def test_a_workbench_shows_what_the_teacher_is_shown_however_much_it_keeps(bank: str, budget: int) -> None:
    workbench = workbench_of(MIXED, render_budget_bytes=budget)
    shown = show(workbench.data.train, ROWS, MIXED, seed=SEED, view=0, device=CPU)
    expected = shown.float().div(255).sub(0.2).div(0.2)
    torch.testing.assert_close(workbench.images(bank, 1, ROWS), expected)


def test_labels_of_a_mixed_bank_are_those_of_its_samples_and_other_banks_have_none() -> None:
    workbench = workbench_of((CROP,))
    assert workbench.mixing("weak", 1, ROWS) is None
    mixing = workbench.mixing("strong", 1, ROWS)
    assert mixing is not None
    assert torch.equal(mixing.labels_BK[:, 0], workbench.labels(ROWS))
    torch.testing.assert_close(mixing.shares_BK.sum(dim=1), torch.ones(len(ROWS)))
    whole = workbench.mixing("strong", 1, torch.arange(44))
    assert whole is not None
    assert torch.equal(mixing.labels_BK, whole.labels_BK[ROWS])
    assert torch.equal(mixing.shares_BK, whole.shares_BK[ROWS])


def test_a_student_of_mixed_images_is_trained_on_mixed_labels() -> None:
    """One step on all samples: its loss is that of soft labels, worked out here from each sample's share."""
    workbench = workbench_of(MIXED)
    rows = torch.arange(workbench.n_train)
    mixing = workbench.mixing("weak", 1, rows)
    assert mixing is not None
    soft = torch.zeros(workbench.n_train, len(CLASSES)).scatter_add_(1, mixing.labels_BK, mixing.shares_BK)
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, len(CLASSES)))
    expected = F.cross_entropy(student(workbench.images("weak", 1, rows)), soft).item()
    hard = F.cross_entropy(student(workbench.images("weak", 1, rows)), workbench.labels(rows)).item()
    assert hard != pytest.approx(expected, rel=1e-3)
    told: list[dict[str, float]] = []
    training = SHORT.with_overrides(epochs=1, batch_size=workbench.n_train)
    train(Course(student, CeConfig(), training, 3), workbench, on_epoch=lambda _, m: told.append(m))
    assert told[0]["train/ce"] == pytest.approx(expected, rel=1e-5)
