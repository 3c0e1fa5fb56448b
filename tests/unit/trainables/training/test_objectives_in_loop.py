"""Every objective through the one loop, from a cache; and those with a state of their own, interrupted."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.numerics.feature_stand_ins import setting_of
from tests.numerics.random_signals import random_logits, signals_of
from tests.unit.trainables.cache.tiny_caches import TinyCache
from tests.unit.trainables.objective_variants import (
    TAUGHT_BANKS,
    VARIANTS,
    averaging_student,
    peers_for,
    student_for,
    taught_features,
    variants_teacher,
)
from tests.unit.trainables.training.small_courses import (
    SHORT,
    VIEWS,
    same_weights,
    separable_data,
    small_course,
    small_workbench,
    untimed,
    weights_of,
)
from trainables.config import CrldConfig, KdConfig, MlldConfig, ObjectiveBase
from trainables.config.objectives import (
    AkdConfig,
    CbdConfig,
    CrdConfig,
    CtkdConfig,
    FitnetConfig,
    MclConfig,
    MfefConfig,
    MixskdConfig,
    PixelConfig,
    PskdConfig,
    ReviewkdConfig,
    SimregConfig,
    SrdConfig,
    TatConfig,
    ThkdConfig,
    TintemConfig,
)
from trainables.data.splits import split_facts
from trainables.errors import CheckpointError, TrialFailed
from trainables.models.cosine import with_cosine_head
from trainables.objectives import OBJECTIVES, build_objective
from trainables.signals import Setting
from trainables.training.course import Course
from trainables.training.learners.fine_tuning import FineTuning
from trainables.training.loop import train
from trainables.training.objective_state import restore_state
from trainables.training.progress.checkpoints import CheckpointFolder
from trainables.training.ranks import SOLO, Solo, average_gradients
from trainables.training.workbench import Workbench

pytestmark = pytest.mark.usefixtures("one_thread")

ONE = SHORT.with_overrides(epochs=1)
Told = list[dict[str, float]]


class Lost(Exception):
    """A worker that dies."""


@pytest.fixture(scope="module")
def workbench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    data = separable_data()
    teacher, folder = variants_teacher(), tmp_path_factory.mktemp("lab")
    tiny = TinyCache(folder, data, teacher, split_facts(data), views=VIEWS, features=taught_features())
    tiny.build(TAUGHT_BANKS)
    return small_workbench(tiny.data, cache=tiny.open())


def course_of(objective: ObjectiveBase, **changes: Any) -> Course:
    networks = {"model": student_for(objective), "peers": peers_for(objective)}
    return replace(small_course(SHORT, objective=objective), **{**networks, **changes})


@pytest.mark.parametrize("objective", VARIANTS.values(), ids=VARIANTS)
def test_every_objective_trains_a_student_from_the_cache(
    workbench: Workbench, objective: ObjectiveBase
) -> None:
    told: Told = []
    alone = dict(objective).get("hint_epochs", 0)  # one epoch more than the hint has for itself
    course = course_of(objective, training=ONE.with_overrides(epochs=1 + alone))
    before = weights_of(course.model)
    train(course, workbench, on_epoch=lambda _, metrics: told.append(metrics))
    metrics = told[-1]
    assert all(math.isfinite(value) for value in metrics.values())
    assert len([name for name in metrics if name.startswith("train/")]) >= 3
    after = weights_of(course.model)
    assert not same_weights(before, after)
    assert after.keys() == before.keys()  # modules beside the student leave no trace in it


@pytest.mark.parametrize("objective", VARIANTS.values(), ids=VARIANTS)
def test_every_objective_trains_on_pairs_of_a_class(workbench: Workbench, objective: ObjectiveBase) -> None:
    """The whole epoch in one step: two classes have an odd number of images, of which one comes twice."""
    told: Told = []
    alone = dict(objective).get("hint_epochs", 0)
    recipe = ONE.with_overrides(epochs=1 + alone, batch_size=44 + 2, sampling="pairs")
    course = course_of(objective, training=recipe)
    before = weights_of(course.model)
    train(course, workbench, on_epoch=lambda _, metrics: told.append(metrics))
    assert all(math.isfinite(value) for metrics in told for value in metrics.values())
    assert not same_weights(before, weights_of(course.model))


@pytest.mark.parametrize("name", ["mcl", "mcl in layers"])
def test_with_pairs_every_image_has_another_one_of_its_class(workbench: Workbench, name: str) -> None:
    told: Told = []
    for sampling in ("natural", "pairs"):
        course = course_of(VARIANTS[name], training=ONE.with_overrides(batch_size=4, sampling=sampling))
        train(course, workbench, on_epoch=lambda _, metrics: told.append(metrics))
    natural, pairs = (metrics["train/paired"] for metrics in told)
    assert natural < 0.9
    assert pairs == 1.0


STATEFUL: dict[str, ObjectiveBase] = {
    "ctkd": CtkdConfig(curriculum_epochs=3),
    "pskd": PskdConfig(),
    "pskd half": PskdConfig(half=True),
    "akd": AkdConfig(steps=2, attack_target="mixture"),
    "crd": CrdConfig(dim=8, negatives=12),
    "crd as released": CrdConfig(dim=8, draw="sample", when_short="repeat", positive="relaxed"),
    "simreg": SimregConfig(),
    "srd": SrdConfig(),
    "thkd": ThkdConfig(bridge="always", embedding="cosine"),
    "fitnet": FitnetConfig(),
    "reviewkd": ReviewkdConfig(),
    "tat": TatConfig(theta="conv"),
    "tintem": TintemConfig(),
    "pixel": PixelConfig(eta=1.0),
    "mcl": MclConfig(),
    "mcl with banks": MclConfig(form="bank", dim=8, negatives=12, peers=3),
    "mfef": MfefConfig(peers=3, ramp_epochs=4),
    "mixskd": MixskdConfig(disc_weight=1.0),
}


@pytest.mark.parametrize("dies_in", [3, 4])
@pytest.mark.parametrize("objective", STATEFUL.values(), ids=STATEFUL)
def test_a_killed_course_goes_on_with_the_objectives_state_to_the_same_end(
    tmp_path: Path, workbench: Workbench, objective: ObjectiveBase, dies_in: int
) -> None:
    whole, expected = course_of(objective), list[dict[str, float]]()
    train(whole, workbench, on_epoch=lambda _, metrics: expected.append(untimed(metrics)))
    files, told = CheckpointFolder(tmp_path, spec_digest="a"), dict[int, dict[str, float]]()

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        if epoch == dies_in:
            raise Lost
        told[epoch] = untimed(metrics)

    with pytest.raises(Lost):
        train(course_of(objective), workbench, on_epoch=on_epoch, files=files)
    course = course_of(objective)
    train(course, workbench, on_epoch=lambda epoch, m: told.update({epoch: untimed(m)}), files=files)
    assert [told[epoch] for epoch in sorted(told)] == expected
    assert same_weights(weights_of(course.model), weights_of(whole.model))


def test_the_temperature_is_learned_and_stays_out_of_the_student(workbench: Workbench) -> None:
    told: Told = []
    course = course_of(CtkdConfig(curriculum_epochs=1))
    train(course, workbench, on_epoch=lambda _, metrics: told.append(metrics))
    temperatures = [metrics["train/temperature"] for metrics in told]
    assert len(set(temperatures)) == len(temperatures)
    assert weights_of(course.model).keys() == weights_of(averaging_student()).keys()


@pytest.mark.parametrize("objective", [KdConfig(), CrldConfig(), MlldConfig()], ids=["kd", "crld", "mlld"])
def test_each_view_has_a_forward_pass_of_its_own_and_with_it_its_own_batch_statistics(
    workbench: Workbench, objective: ObjectiveBase
) -> None:
    """As in the released CRLD; both views in one batch would be another algorithm."""
    course = course_of(objective, training=ONE)
    train(course, workbench, on_epoch=lambda *_: None)
    n_updates = course.model.get_buffer("1.num_batches_tracked").item()
    assert n_updates == len(objective.banks) * (44 // SHORT.batch_size)


def test_a_student_that_sees_adversarial_images_is_measured_under_attack(workbench: Workbench) -> None:
    told: Told = []
    course = course_of(AkdConfig(epsilon=64.0, step=32.0, steps=3), training=ONE)
    train(course, workbench, on_epoch=lambda _, metrics: told.append(metrics))
    (metrics,) = told
    assert 0.0 <= metrics["selection/accuracy_under_attack"] <= metrics["selection/accuracy"]
    # The attack runs in evaluation mode: one update of the batch statistics a step, not one a forward pass.
    n_updates = course.model.get_buffer("1.num_batches_tracked").item()
    assert n_updates == 44 // SHORT.batch_size
    other: Told = []
    train(course_of(KdConfig(), training=ONE), workbench, on_epoch=lambda _, metrics: other.append(metrics))
    assert "selection/accuracy_under_attack" not in other[0]


def test_a_balanced_epoch_trains_and_is_the_same_again(workbench: Workbench) -> None:
    training, ends = SHORT.with_overrides(sampling="class_balanced", epochs=2), []
    for _ in range(2):
        course = course_of(CbdConfig(), training=training)
        train(course, workbench, on_epoch=lambda *_: None)
        ends.append(weights_of(course.model))
    assert same_weights(*ends)
    natural = course_of(CbdConfig(), training=SHORT.with_overrides(epochs=2))
    train(natural, workbench, on_epoch=lambda *_: None)
    assert not same_weights(ends[0], weights_of(natural.model))


def test_a_student_without_the_teachers_width_fails_with_the_width_to_set(workbench: Workbench) -> None:
    course = replace(course_of(CbdConfig(), training=ONE), model=with_cosine_head(averaging_student(), 5, 3))
    with pytest.raises(TrialFailed, match=r"set student\.cosine_head to 32"):
        train(course, workbench, on_epoch=lambda *_: None)


def test_srd_takes_the_embedding_of_a_student_without_maps_unless_it_is_to_take_the_map(
    workbench: Workbench,
) -> None:
    told: Told = []
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 3))
    course = replace(course_of(SrdConfig()), model=student)
    train(course, workbench, on_epoch=lambda _, metrics: told.append(metrics))
    assert told[-1]["train/srd_logits"] < told[0]["train/srd_logits"]
    with pytest.raises(TrialFailed, match="has no feature 'last'; it has embedding"):
        train(replace(course, objective=SrdConfig(level="map")), workbench, on_epoch=lambda *_: None)


def test_every_sample_of_full_batches_has_answered_after_an_epoch(workbench: Workbench) -> None:
    told: Told = []
    train(course_of(PskdConfig()), workbench, on_epoch=lambda _, metrics: told.append(metrics))
    answered = [metrics["train/answered"] for metrics in told]
    assert answered[0] == 0.0
    assert all(later >= earlier for earlier, later in itertools.pairwise(answered))
    assert answered[1] > 0.8
    assert [metrics["train/trust"] for metrics in told] == pytest.approx([0.16, 0.32, 0.48, 0.64, 0.8])


def test_a_state_of_other_data_is_refused() -> None:
    one, other = (build_objective(PskdConfig(), Setting(n, 3, epochs=5)) for n in (44, 45))
    with pytest.raises(
        CheckpointError, match=r"other shapes are answers_NC \(44, 3\), here \(45, 3\), answered_N"
    ):
        restore_state(other, one.state_dict())
    with pytest.raises(CheckpointError, match="it has besides answers_NC, answered_N; its hyper-parameters"):
        restore_state(build_objective(KdConfig()), one.state_dict())


WITH_PARAMETERS = {
    *(
        "ctkd",
        "crd",
        "simreg",
        "srd",
        "fitnet",
        "reviewkd",
        "tat",
        "tintem",
        "pixel",
        "mlkd",
        "sskd",
        "hsakd",
    ),
    *("mcl", "mfef", "mixskd"),
}


def trained(model: nn.Module, objective: nn.Module) -> list[nn.Parameter]:
    (group,) = FineTuning().groups(model, objective)
    return list(group["params"])


def test_an_optimiser_trains_the_parameters_of_objectives_that_have_some() -> None:
    logits = random_logits(0, 4, 3)
    model, setting = averaging_student(), setting_of(signals_of(logits, logits, torch.tensor([0, 1, 2, 0])))
    n_own = len(list(model.parameters()))
    extra = {
        name: len(trained(model, build_objective(VARIANTS[name], setting))) - n_own for name in OBJECTIVES
    }
    assert extra["ctkd"] == 1
    assert {name for name, count in extra.items() if count} == WITH_PARAMETERS


def test_a_state_that_an_earlier_version_kept_is_read() -> None:
    setting = Setting(2, 3, epochs=5)
    ctkd = build_objective(CtkdConfig(), setting)
    restore_state(ctkd, {"theta": torch.tensor(0.25)})
    assert ctkd.get_parameter("theta").item() == 0.25
    pskd = build_objective(PskdConfig(), setting)
    answers_NC, answered_N = torch.rand(2, 3), torch.tensor([True, False])
    restore_state(pskd, {"answers_NC": answers_NC, "answered_N": answered_N})
    assert torch.equal(pskd.get_buffer("answers_NC"), answers_NC)
    restore_state(build_objective(KdConfig()), {})


def test_an_optimiser_has_the_students_parameters_first_whatever_the_objective() -> None:
    """Optimisers keep their state by the place of a parameter: a checkpoint depends on it."""
    model = averaging_student()
    own = list(model.parameters())
    for objective in (build_objective(KdConfig()), build_objective(CtkdConfig(), Setting(2, 3, epochs=5))):
        optimised = trained(model, objective)
        assert all(one is other for one, other in zip(optimised, own, strict=False))


def test_ranks_average_the_gradients_of_an_objectives_own_parameters() -> None:
    objective = build_objective(CtkdConfig(), Setting(2, 3, epochs=5))
    theta = objective.get_parameter("theta")
    theta.grad = torch.tensor(3.0)
    average_gradients(objective, SOLO)
    assert theta.grad.item() == 3.0
    average_gradients(objective, Opposed())
    assert theta.grad.item() == 1.0
    average_gradients(build_objective(KdConfig()), Opposed())  # nothing to average


@dataclass(frozen=True)
class Opposed(Solo):
    """A team of two, of which the other rank has a gradient of -1: it says that it has one, then which."""

    size: int = 2
    other: Iterator[float] = field(default_factory=lambda: iter([1.0, -1.0]))

    def sum(self, values_V: Tensor) -> Tensor:
        return values_V + next(self.other)
