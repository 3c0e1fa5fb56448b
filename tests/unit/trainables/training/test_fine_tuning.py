"""Parts of a student that are frozen, and parts that have a learning rate of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from tests.unit.trainables.training.small_courses import CPU, SHORT, small_workbench
from trainables.config import (
    CeConfig,
    KdConfig,
    ModelConfig,
    ModelName,
    OptimizerName,
    Role,
    TrainingConfig,
    TrialSpec,
)
from trainables.errors import ConfigError
from trainables.models import build_model
from trainables.models.resized import resized
from trainables.objectives import build_objective
from trainables.slots.agreed_measurements import shape_digest
from trainables.slots.compiled_students import CompiledStudents
from trainables.training.course import Course
from trainables.training.learners.fine_tuning import fine_tuning, hold_frozen
from trainables.training.loop import train
from trainables.training.optimisers import build_optimizer, set_learning_rate
from trainables.training.progress.checkpoints import CheckpointFolder
from trainables.training.ranks import DdpTeam


class Pretrained(nn.Module):
    """A stem with batch norm and dropout, two layers of like names, a bare parameter, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3)
        )
        self.layer1 = nn.Conv2d(4, 4, 3, padding=1)
        self.layer10 = nn.Conv2d(4, 4, 3, padding=1)
        self.scale = nn.Parameter(torch.ones(1))
        self.drop = nn.Dropout(0.1)
        self.classifier = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.layer10(self.layer1(self.stem(images))) * self.scale
        logits: Tensor = self.classifier(self.drop(maps.mean((2, 3))))
        return logits


def student(seed: int = 0) -> Pretrained:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Pretrained()


def recipe(**changes: Any) -> TrainingConfig:
    return SHORT.with_overrides(**changes)


def held(*patterns: str, model: nn.Module | None = None) -> set[str]:
    return set(fine_tuning(model or student(), recipe(freeze=patterns), 3).held)


STEM = {"stem.0.weight", "stem.0.bias", "stem.1.weight", "stem.1.bias"}


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["stem"], STEM),
        (["stem.0"], {"stem.0.weight", "stem.0.bias"}),
        (["layer1"], {"layer1.weight", "layer1.bias"}),
        (["layer*"], {"layer1.weight", "layer1.bias", "layer10.weight", "layer10.bias"}),
        (["scale"], {"scale"}),
        (["*.bias", "classifier"], {"classifier.weight", "stem.0.bias", "stem.1.bias", *(
            f"{name}.bias" for name in ("layer1", "layer10", "classifier"))}),
        (["head"], {"classifier.weight", "classifier.bias"}),
    ],
)  # fmt: skip
def test_parts_are_named_as_the_network_names_them(patterns: list[str], expected: set[str]) -> None:
    assert held(*patterns) == expected
    behind = resized(student(), 8)
    assert held(*patterns, model=behind) == {f"network.{name}" for name in expected}


def test_the_backbone_is_all_but_the_head() -> None:
    every = {name for name, _ in student().named_parameters()}
    assert held("backbone") == every - {"classifier.weight", "classifier.bias"}
    of_torchvision = ModelConfig(name=ModelName.TORCHVISION, variant="mobilenet_v3_small")
    model = build_model(of_torchvision, n_classes=3, in_channels=1)
    left = {name for name, _ in model.named_parameters()} - held("backbone", model=model)
    assert left == {"classifier.3.weight", "classifier.3.bias"}


def test_a_module_called_head_is_that_module() -> None:
    model = nn.Sequential()
    model.add_module("head", nn.Linear(4, 4))
    model.add_module("last", nn.Linear(4, 3))
    assert held("head", model=model) == {"head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"freeze": ["layr1"]},
            r"training\.freeze: nothing in Pretrained is called 'layr1'; nearest: layer1",
        ),
        (
            {"freeze": ["layer"]},
            "is called 'layer'; .* at its top are classifier, drop, layer1, layer10, scale",
        ),
        ({"freeze": ["backbone", "head"]}, "holds all of Pretrained, and nothing is left to train"),
        ({"lr_groups": {"stm": 0.1}}, r"training\.lr_groups: nothing in Pretrained is called 'stm'"),
        (
            {"freeze": ["stem"], "lr_groups": {"stem.0": 0.1}},
            "'stem.0' names only parts that training.freeze",
        ),
    ],
)
def test_names_that_fit_nothing_are_refused_with_the_nearest(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fine_tuning(student(), recipe(**changes), 3)


def test_a_network_without_a_linear_head_has_no_backbone_by_that_word() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(
        ConfigError, match="no linear layer that gives the logits, so 'backbone' is not clear"
    ):
        fine_tuning(model, recipe(freeze=["backbone"]), 3)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9}, {"optimizer": "adamw", "weight_decay": 0.5}])
def test_what_is_frozen_keeps_its_weights_and_statistics_and_the_rest_learns(changes: dict[str, Any]) -> None:
    model = student()
    before = state_of(model)
    course = Course(model, CeConfig(), recipe(freeze=["stem", "scale"], **changes), 1)
    train(course, small_workbench(), on_epoch=lambda *_: None)
    after = state_of(model)
    same = {name for name in before if torch.equal(before[name], after[name])}
    statistics = {"stem.1.running_mean", "stem.1.running_var", "stem.1.num_batches_tracked"}
    assert same == STEM | statistics | {"scale"}


def test_frozen_batch_norm_and_dropout_are_as_in_evaluation_and_dropout_before_the_head_is_not() -> None:
    model = student()
    tuning = hold_frozen(model, recipe(freeze=["backbone"]), 3)
    tuning.train(model)
    modes = {name: module.training for name, module in model.named_modules() if not list(module.children())}
    assert {name for name, training in modes.items() if training} == {"drop", "classifier"}


def test_frozen_parameters_are_not_in_the_optimiser_and_those_of_the_objective_are() -> None:
    model, objective = student(), build_objective(KdConfig())
    objective.own = nn.Parameter(torch.ones(1))
    for changes in ({}, {"lr_groups": {"head": 10.0}}):
        groups = fine_tuning(model, recipe(freeze=["stem"], **changes), 3).groups(model, objective)
        optimised = {id(parameter) for group in groups for parameter in group["params"]}
        expected = {id(p) for name, p in model.named_parameters() if name not in STEM} | {id(objective.own)}
        assert optimised == expected


def rates(lr_groups: dict[str, float], *, optimizer: OptimizerName = OptimizerName.SGD) -> dict[str, float]:
    model, training = student(), recipe(lr_groups=lr_groups, optimizer=optimizer)
    groups = fine_tuning(model, training, 3).groups(model, nn.Module())
    built = build_optimizer(groups, training)
    set_learning_rate(built, 0.5)
    by_id = {id(p): group["lr"] for group in built.param_groups for p in group["params"]}
    return {name: by_id[id(parameter)] for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("optimizer", OptimizerName)
def test_the_longer_name_gives_the_rate_and_the_rest_has_the_recipes(optimizer: OptimizerName) -> None:
    found = rates({"backbone": 0.1, "stem": 0.5, "stem.1.weight": 2.0}, optimizer=optimizer)
    assert found == {
        **dict.fromkeys(found, 0.05),
        **{"stem.0.weight": 0.25, "stem.0.bias": 0.25, "stem.1.weight": 1.0, "stem.1.bias": 0.25},
        **{"classifier.weight": 0.5, "classifier.bias": 0.5},
    }


def test_a_course_with_groups_goes_on_as_if_it_had_not_been_stopped(tmp_path: Path) -> None:
    training = recipe(freeze=["stem.0"], lr_groups={"backbone": 0.1, "layer1": 3.0}, ema=0.5)
    whole, stopped = student(), student()
    train(Course(whole, CeConfig(), training, 1), small_workbench(), on_epoch=lambda *_: None)
    files = CheckpointFolder(tmp_path, spec_digest="one")
    epochs: list[int] = []
    for should_stop in (lambda: len(epochs) >= 3, lambda: False):
        train(
            Course(stopped, CeConfig(), training, 1),
            small_workbench(),
            on_epoch=lambda epoch, _: epochs.append(epoch),
            should_stop=should_stop,
            files=files,
        )
        stopped = student(seed=9) if epochs[-1] != training.epochs else stopped
    assert epochs == [1, 2, 3, 3, 4, 5]
    assert all(
        torch.equal(a, b) for a, b in zip(state_of(whole).values(), state_of(stopped).values(), strict=True)
    )


def test_recipes_without_groups_keep_their_ids_and_those_with_freezing_are_compiled_apart() -> None:
    assert not {"freeze", "lr_groups"} & TrainingConfig().plain().keys()
    bench = small_workbench()
    digests = [
        shape_digest(
            TrialSpec(
                trial_id="one",
                role=Role.SEARCH,
                objective=CeConfig(),
                student=ModelConfig(name=ModelName.MLP),
                training=recipe(freeze=freeze),
                seed=0,
            ),
            bench.data,
        )
        for freeze in ([], ["stem"])
    ]
    assert digests[0] != digests[1]
    assert bench.device == CPU


@pytest.fixture
def _team_of_one(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("_team_of_one")
@pytest.mark.parametrize("way", ["compiled", "team"])
def test_compiled_students_and_those_of_a_team_end_as_a_plain_one(way: str) -> None:
    training = recipe(freeze=["stem"], lr_groups={"backbone": 0.1}, epochs=2)
    plain, other = student(), student()
    before = state_of(other)
    train(Course(plain, CeConfig(), training, 1), small_workbench(), on_epoch=lambda *_: None)
    course = Course(other, CeConfig(), training, 1, team=DdpTeam())
    if way == "compiled":
        compiled = CompiledStudents(1, backend="aot_eager").take("a", other)
        course = Course(compiled.model, CeConfig(), training, 1, forward=compiled.forward)
    train(course, small_workbench(), on_epoch=lambda *_: None)
    after = state_of(other)
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("stem"))
    torch.testing.assert_close(after, state_of(plain), rtol=1e-3, atol=1e-4)
