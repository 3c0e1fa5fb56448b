"""Students of a pack beside the same students alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from tests.unit.trainables.training.packs.packed_courses import (
    KD,
    Told,
    again,
    alone,
    apart,
    course,
    packed_student,
    states,
    taught_workbench,
    ticket,
    together,
)
from tests.unit.trainables.training.small_courses import SHORT, same_weights, weights_of
from trainables.config import (
    CeConfig,
    CrldConfig,
    DistConfig,
    DkdConfig,
    KdConfig,
    LsConfig,
    MlldConfig,
    ModelConfig,
    ModelName,
    ObjectiveBase,
)
from trainables.config.logit_objectives import AektConfig, CkdConfig, ClkdConfig
from trainables.errors import TrialFailed
from trainables.models import build_model
from trainables.training.course import TrainingResult
from trainables.training.packs import judging
from trainables.training.packs.networks import Form, forms_of
from trainables.training.packs.pack import Pack
from trainables.training.progress.checkpoints import CheckpointFolder
from trainables.training.workbench import Workbench

pytestmark = pytest.mark.usefixtures("one_thread")

STEP = 1e-5
"""Relative, after a step: what rounding in fp32 leaves."""
ONE = SHORT.with_overrides(epochs=1, batch_size=44)
"""A single step."""

RECIPES: dict[str, list[dict[str, Any]]] = {
    "sgd": [{"lr": 0.05}, {"lr": 0.1, "momentum": 0.5}, {"lr": 0.02, "weight_decay": 0.01}],
    "nesterov": [{"nesterov": True}, {"nesterov": True, "momentum": 0.8, "lr": 0.01}],
    "adamw": [{"optimizer": "adamw", "lr": 0.01}, {"optimizer": "adamw", "lr": 0.002, "weight_decay": 0.1}],
    "clipped": [{"clip_norm": 0.1}, {"clip_norm": 0.5, "lr": 0.1}],
    "mean of weights": [{"ema": 0.9}, {"ema": 0.5}],
    "schedules": [
        {"schedule": "constant"},
        {"schedule": "step", "milestones": [2]},
        {"schedule": "cosine", "warmup_epochs": 1.0},
    ],
}
OBJECTIVES: dict[str, list[ObjectiveBase]] = {
    "ce": [CeConfig(), CeConfig()],
    "ls": [LsConfig(smoothing=0.1), LsConfig(smoothing=0.3)],
    "kd": [KD, KdConfig(temperature=5.0, kd_weight=3.0, ce_weight=0.5), KdConfig()],
    "lskd": [KdConfig(standardise=True), KdConfig(standardise=True, temperature=3.0)],
    "dkd": [DkdConfig(), DkdConfig(alpha=2.0, beta=3.0)],
    "dist": [DistConfig(), DistConfig(beta=1.0, temperature=2.0)],
    "aekt": [AektConfig(), AektConfig(temperature=2.0)],
    "clkd": [ClkdConfig(), ClkdConfig(beta=0.5)],
    "ckd": [CkdConfig(), CkdConfig(temperature=3.0)],
    "mlld": [MlldConfig(), MlldConfig(temperature=3.0, kd_weight=0.3)],
    "crld": [CrldConfig(weak_threshold=0.3, strong_threshold=0.2), CrldConfig(cross_weight=0.5)],
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return taught_workbench(tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("changes", RECIPES.values(), ids=RECIPES)
def test_a_packed_student_is_the_lone_one_to_rounding(
    bench: Workbench, form: Form, changes: list[dict[str, Any]]
) -> None:
    """Every lane has numbers of its own, weights and order of batches too; five epochs of five steps."""
    courses = [course(seed, training=SHORT.with_overrides(**own)) for seed, own in enumerate(changes)]
    lone = again(courses)
    expected = [alone(own, bench) for own in lone]
    found, _ = together(courses, bench, form)
    for own, other in zip(found, expected, strict=True):
        assert own.epochs == other.epochs
        assert [e.best_epoch for e in own.ends if isinstance(e, TrainingResult)] == [
            e.best_epoch for e in other.ends if isinstance(e, TrainingResult)
        ]
        for one, two in zip(own.metrics, other.metrics, strict=True):
            assert one.keys() - {"train/lanes"} == two.keys()
            for name in two.keys() - {"seconds", "train/images_per_s"}:
                assert one[name] == pytest.approx(two[name], rel=1e-3, abs=1e-4), name
    for packed, by_itself in zip(states(courses), states(lone), strict=True):
        assert apart(packed, by_itself) < 1e-3


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("objectives", OBJECTIVES.values(), ids=OBJECTIVES)
def test_a_step_of_every_objective_is_that_of_a_lone_student(
    bench: Workbench, form: Form, objectives: list[ObjectiveBase]
) -> None:
    courses = [course(seed, objective, ONE) for seed, objective in enumerate(objectives)]
    lone = again(courses)
    expected = [alone(own, bench) for own in lone]
    found, _ = together(courses, bench, form)
    for one, other in zip(states(courses), states(lone), strict=True):
        assert apart(one, other) < STEP
    for told, other_told in zip(found, expected, strict=True):
        for name, value in other_told.metrics[0].items():
            if name.startswith("train/") and name != "train/images_per_s":
                assert told.metrics[0][name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


class Counting(nn.Module):
    """A network that behaves otherwise after its first pass, which no buffer tells."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        self.passes = 0

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        logits: Tensor = self.body(images)
        return logits


class Shuffled(nn.Module):
    """A network that mixes channels: side by side with others', it would mix them up."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv(images)
        x = x.view(len(x), 2, -1, *x.shape[2:]).transpose(1, 2).flatten(1, 2)
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits


def _head(inputs: int) -> list[nn.Module]:
    return [nn.Flatten(), nn.Linear(inputs, 3)]


NETWORKS: dict[str, tuple[nn.Module, list[Form]]] = {
    "convolutions": (packed_student(0), list(Form)),
    "dropout": (nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3)), []),
    "a state of Python": (Counting(), []),
    "shuffled channels": (Shuffled(), [Form.MAPPED]),
    "layer norm": (nn.Sequential(nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 3)), [Form.MAPPED]),
    "group norm": (
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(144, 3)),
        list(Form),
    ),
}


@pytest.mark.parametrize(("network", "forms"), NETWORKS.values(), ids=NETWORKS)
def test_a_network_has_the_forms_that_compute_what_it_computes_alone(
    network: nn.Module, forms: list[Form]
) -> None:
    before = weights_of(network)
    assert forms_of(network, (1, 8, 8)) == forms
    assert same_weights(weights_of(network), before)


ZOO = [ModelName.MLP, ModelName.CONVNET, ModelName.RESNET8, ModelName.VGG8, ModelName.WRN_16_1]


@pytest.mark.parametrize("name", ZOO)
def test_students_of_the_zoo_have_both_forms(name: ModelName) -> None:
    network = build_model(ModelConfig(name=name, width=4), n_classes=3, in_channels=1)
    assert forms_of(network, (1, 16, 16)) == list(Form)


@pytest.mark.parametrize("form", Form)
def test_a_lane_that_diverges_changes_nothing_in_another(bench: Workbench, form: Form) -> None:
    sane = [course(seed) for seed in (0, 2)]
    both = [course(0), course(1, training=SHORT.with_overrides(lr=100.0, momentum=0.99)), course(2)]
    expected, _ = together(sane, bench, form)
    found, _ = together(both, bench, form)
    assert isinstance(found[1].ends[0], TrialFailed) or any(
        metrics["train/loss"] > 100 for metrics in found[1].metrics
    )
    assert len(found[0].epochs) == len(expected[0].epochs) == 5
    for one, other in zip(states([both[0], both[2]]), states(sane), strict=True):
        assert apart(one, other) < 1e-4


@pytest.mark.parametrize("form", Form)
def test_a_killed_pack_goes_on_from_its_states(bench: Workbench, tmp_path: Path, form: Form) -> None:
    changes: list[dict[str, Any]] = [{"ema": 0.9}, {"ema": 0.5, "lr": 0.02}]
    recipes = [SHORT.with_overrides(checkpoint_every=2, optimizer="adamw", **own) for own in changes]
    whole = [course(seed, training=recipe) for seed, recipe in enumerate(recipes)]
    together(whole, bench, form)
    halves = again(whole)
    folders = [CheckpointFolder(tmp_path / str(n), spec_digest="a") for n in range(2)]
    first, told = [Told(), Told()], [Told(), Told()]
    for epochs, tolds in ((3, first), (3, told)):
        courses = again(halves)
        tickets = [ticket(own, t, files=f) for own, t, f in zip(courses, tolds, folders, strict=True)]
        pack = Pack(tickets[0], bench, form)
        for own in tickets:
            pack.admit(own)
        for _ in range(epochs):
            if pack.lanes:
                pack.train_epoch()
    assert [t.epochs for t in first] == [[1, 2, 3]] * 2
    assert [t.epochs for t in told] == [[3, 4, 5]] * 2
    for one, other in zip(states(courses), states(whole), strict=True):
        assert apart(one, other) < 1e-4


def test_a_state_of_a_pack_goes_on_alone(bench: Workbench, tmp_path: Path) -> None:
    own = course(0, training=SHORT.with_overrides(checkpoint_every=2))
    files = CheckpointFolder(tmp_path, spec_digest="a")
    pack = Pack(ticket(own, Told()), bench, Form.GROUPED)
    pack.admit(ticket(own, Told(), files=files))
    pack.train_epoch()
    pack.train_epoch()
    (alone_course,) = again([own])
    told = alone(alone_course, bench, files)
    assert told.epochs == [3, 4, 5]
    assert files.began_packed
    (whole,) = again([own])
    alone(whole, bench)
    assert apart(*states([alone_course, whole])) < 1e-3


def test_answers_that_are_too_many_to_be_held_are_judged_by_batch(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = SHORT.with_overrides(epochs=2, eval_batch_size=7)
    held, _ = together([course(seed, training=recipe) for seed in range(2)], bench)
    monkeypatch.setattr(judging, "MAX_LOGITS", 10)
    found, _ = together([course(seed, training=recipe) for seed in range(2)], bench)
    for own, other in zip(found, held, strict=True):
        for one, two in zip(own.metrics, other.metrics, strict=True):
            figures = {name for name in two if name.startswith("selection/")}
            assert {"selection/accuracy", "selection/nll", "selection/ece", "selection/agreement"} <= figures
            assert all(one[name] == pytest.approx(two[name], rel=1e-5) for name in figures)
