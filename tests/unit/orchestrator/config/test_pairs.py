"""Pairs of teacher and student: one file for all of them, and one line about what is wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.config.loading import EXPERIMENTS_FOLDER, load_experiment
from orchestrator.config.pairs import with_pair
from orchestrator.config.schema import ExperimentConfig
from orchestrator.config.validation_messages import build
from orchestrator.config.yaml_reader import read_yaml
from trainables.config import ModelConfig, ModelName, Normalisation, ScheduleName, TrainingConfig
from trainables.errors import ConfigError

EXPERIMENT = """\
name: mine
data: {name: digits}
teacher:
  model: {name: resnet20}
  checkpoint: first.pt
  training: {epochs: 3}
student: {name: resnet8, width: 4}
views: {}
training:
  epochs: 7
  lr: 0.05
space: kd
pairs:
  large-small:
    teacher: {name: resnet56}
    student: {name: mlp, width: 8}
    training: {lr: 0.01, momentum: 0.5}
  other:
    teacher: {name: vgg13}
    checkpoint: second.pt
    student: {name: vgg8}
"""

# Contrastive Representation Distillation (Tian et al., ICLR 2020), tables 1 and 2.
THIRTEEN = {
    *(
        ("wrn_40_2", "wrn_16_2"),
        ("wrn_40_2", "wrn_40_1"),
        ("resnet56", "resnet20"),
        ("resnet110", "resnet20"),
    ),
    *(("resnet110", "resnet32"), ("resnet32x4", "resnet8x4"), ("vgg13", "vgg8"), ("vgg13", "mobilenetv2")),
    *(("resnet50", "mobilenetv2"), ("resnet50", "vgg8"), ("resnet32x4", "shufflenetv1")),
    *(("resnet32x4", "shufflenetv2"), ("wrn_40_2", "shufflenetv1")),
}
AT_A_LOWER_RATE = ("mobilenetv2", "shufflenetv1", "shufflenetv2")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    for name in ("first.pt", "second.pt"):
        (tmp_path / name).write_bytes(b"PK")
    (tmp_path / "mine.yaml").write_text(EXPERIMENT)
    return tmp_path / "mine.yaml"


def load(path: Path, pair: str | None = None) -> object:
    return load_experiment(f"{path}:{pair}" if pair else str(path), check_paths=False).config


def test_a_pair_takes_the_place_of_teacher_and_student(path: Path) -> None:
    config = load_experiment(f"{path}:large-small", check_paths=False).config
    assert config.teacher.model == ModelConfig(name=ModelName.RESNET56)
    assert config.teacher.checkpoint is None  # the file's is of another network
    assert config.teacher.training.epochs == 3
    assert config.student.network == ModelConfig(name=ModelName.MLP, width=8)
    assert (config.training.epochs, config.training.lr, config.training.momentum) == (7, 0.01, 0.5)
    assert (config.name, config.out_folder) == ("mine-large-small", "out/mine-large-small")


def test_a_pair_brings_the_checkpoint_of_its_teacher(path: Path) -> None:
    config = load_experiment(f"{path}:other", check_paths=False).config
    assert config.teacher.checkpoint == str(path.parent / "second.pt")
    assert config.training.lr == 0.05


def test_a_pair_says_how_the_images_of_its_teacher_were_normalised(path: Path) -> None:
    told = "    normalisation: {mean: [0.5], std: [0.25]}\n    expected_accuracy: 0.9\n    classes: [a, b]\n"
    path.write_text(EXPERIMENT + told)
    teacher = load_experiment(f"{path}:other", check_paths=False).config.teacher
    assert teacher.normalisation == Normalisation(mean=(0.5,), std=(0.25,))
    assert teacher.expected_accuracy == 0.9
    assert teacher.classes == ("a", "b")
    assert load_experiment(f"{path}:large-small", check_paths=False).config.teacher.normalisation is None


def test_without_a_choice_the_file_holds_as_it_is_written(path: Path) -> None:
    without = path.with_name("without.yaml")
    without.write_text(EXPERIMENT.partition("pairs:")[0])
    assert load(path) == load(without)


def test_what_a_run_is_known_by_does_not_depend_on_the_other_pairs(path: Path) -> None:
    fewer = path.with_name("fewer.yaml")
    fewer.write_text(EXPERIMENT.partition("  other:")[0])
    loaded = [load_experiment(f"{file}:large-small", check_paths=False).config for file in (path, fewer)]
    assert loaded[0].plain() == loaded[1].plain()
    assert not {"pair", "pairs"} & loaded[0].plain().keys()


def test_a_file_may_choose_and_the_command_line_chooses_otherwise(path: Path) -> None:
    path.write_text(EXPERIMENT + "pair: other\n")
    chosen = load_experiment(str(path), check_paths=False).config
    assert (chosen.name, chosen.student.name) == ("mine-other", ModelName.VGG8)
    other = load_experiment(f"{path}:large-small", check_paths=False).config
    assert (other.name, other.student.name) == ("mine-large-small", ModelName.MLP)


@pytest.mark.parametrize(
    ("replaced", "by", "says"),
    [
        ("space: kd", "space: kd\npair: large-smal", "mine.yaml:13: pair: found 'large-smal'; allowed: "),
        ("  other:", "  a b:", "mine.yaml:13: pairs: the name of pair 'a b': allowed are up to 60 letters"),
        ("name: vgg8", "name: vgg9", "mine.yaml:21: pairs.other.student.name: found 'vgg9'; allowed: mlp"),
        ("    student: {name: vgg8}\n", "", "mine.yaml:18: pairs.other.student: found nothing; needed"),
        ("checkpoint: second", "chekpoint: second", "mine.yaml:20: pairs.other.chekpoint: unknown key"),
        (
            "second.pt",
            "second.onnx",
            "mine.yaml:20: pairs.other.checkpoint: found 'second.onnx'; a pair cannot hold an ONNX",
        ),
        ("lr: 0.01", "lr: 0", "mine.yaml:17: training.lr: found 0; allowed: a number, above 0"),
        ("lr: 0.01", "lrate: 1", "mine.yaml:17: training.lrate: unknown key; allowed: epochs"),
        ("lr: 0.01", "schedule: step", "mine.yaml:9: training: schedule step needs `milestones`"),
    ],
)
def test_what_is_wrong_with_any_pair_is_told_with_its_line(
    path: Path, replaced: str, by: str, says: str
) -> None:
    assert EXPERIMENT.count(replaced) == 1
    path.write_text(EXPERIMENT.replace(replaced, by))
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_pair_on_the_command_line_gets_the_names_and_the_nearest(path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"mine\.yaml has no pair 'othr'; allowed: large-small, other; did you mean 'other'",
    ):
        load(path, "othr")


def test_a_file_without_pairs_has_none_to_choose_from() -> None:
    with pytest.raises(
        ConfigError, match=r"digits.yaml has no pair 'x'; the file has no `pairs` to choose from"
    ):
        load_experiment("digits:x")


def test_a_checkpoint_of_a_pair_that_is_not_there_is_named_with_its_line(path: Path) -> None:
    (path.parent / "second.pt").unlink()
    with pytest.raises(ConfigError, match=r"mine\.yaml:20: teacher\.checkpoint: found 'second\.pt'; allowed"):
        load_experiment(f"{path}:other")


def test_the_lines_of_what_a_pair_replaces_are_forgotten(path: Path) -> None:
    document = with_pair(read_yaml(path), "large-small")
    assert document.line(("student", "width")) == 16
    assert document.line(("teacher", "model", "name")) == 15
    assert document.line(("training", "lr")) == 17
    assert document.line(("training", "epochs")) == 10
    assert ("teacher", "checkpoint") not in document.lines


def test_cifar100_has_the_thirteen_pairs_of_the_literature() -> None:
    found = set()
    document = read_yaml(EXPERIMENTS_FOLDER / "cifar100.yaml")
    for name, pair in document.data["pairs"].items():
        config = build(ExperimentConfig, with_pair(document, name))
        assert config.name == f"cifar100-{name}"
        assert name == f"{pair['teacher']['name']}-{pair['student']['name']}"
        assert config.teacher.model == ModelConfig(name=ModelName(pair["teacher"]["name"]))
        assert config.training.lr == (0.01 if pair["student"]["name"] in AT_A_LOWER_RATE else 0.05)
        assert config.teacher.training.lr == 0.05
        found.add((pair["teacher"]["name"], pair["student"]["name"]))
    assert found == THIRTEEN


def test_cifar100_has_the_recipe_of_the_literature() -> None:
    """Logit-level reference, "CRD recipe": SGD, 240 epochs, a tenth after 150, 180 and 210, crop and flip."""
    config = load_experiment("cifar100", check_paths=False).config
    recipe = TrainingConfig(
        epochs=240,
        batch_size=64,
        lr=0.05,
        momentum=0.9,
        weight_decay=5e-4,
        schedule=ScheduleName.STEP,
        milestones=(150, 180, 210),
        gamma=0.1,
        checkpoint_every=10,
    )
    assert config.training == config.teacher.training == recipe
    assert [step.plain() for step in config.views.weak.recipe] == [
        {"op": "crop_flip", "padding": 4, "flip_probability": 0.5}
    ]
    assert config.views.weak.views == config.views.strong.views == config.training.epochs


def test_imagenet_has_the_recipe_of_the_literature() -> None:
    config = load_experiment("imagenet", check_paths=False).config
    recipe = TrainingConfig(
        epochs=100,
        batch_size=256,
        lr=0.1,
        momentum=0.9,
        weight_decay=1e-4,
        schedule=ScheduleName.STEP,
        milestones=(30, 60, 90),
        gamma=0.1,
        checkpoint_every=1,
    )
    assert config.training == recipe
    assert config.teacher.model == ModelConfig(name=ModelName.TORCHVISION, variant="resnet34")
    assert config.student.network == ModelConfig(name=ModelName.TORCHVISION, variant="resnet18")
    crop, flip = config.views.weak.recipe
    assert crop.plain() == {"op": "random_resized_crop", "scale": [0.08, 1.0], "ratio": [3 / 4, 4 / 3]}
    assert flip.plain() == {"op": "crop_flip", "padding": 0, "flip_probability": 0.5}
