"""`stillhouse evaluate MODEL --data`: an exported student on images with labels."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from orchestrator.cli import app
from tests.unit.trainables.export.exported_students import (
    CLASSES,
    SIDE,
    trained_network,
    weights_alone,
    write_photographs,
)
from trainables.config import DataConfig
from trainables.data import load_training
from trainables.errors import ConfigError, DataError
from trainables.evaluation.metrics import evaluate
from trainables.export.stated import document_of

PER_CLASS = 5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return weights_alone(tmp_path_factory.mktemp("model") / "student.safetensors", trained_network())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for number, name in enumerate(CLASSES):
        for part in ("train", "test"):
            names = [f"{place}.png" for place in range(PER_CLASS)]
            write_photographs(root / part / name, names, seed=100 * number)
    return root


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def raise_what(result: Result) -> None:
    """The error of a command, which `main` would tell."""
    assert result.exception is not None, result.output
    raise result.exception


def evaluated(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_figures_are_those_of_a_runs_own_evaluation(model: Path, folder: Path) -> None:
    found = evaluated(model, "--data", folder / "test")
    config = DataConfig.from_plain(
        {
            "name": "image_folder",
            "root": str(folder),
            "image_size": SIDE,
            "resize": 14,
            "selection_fraction": 0.5,
        }
    )
    data = load_training(config)
    own = document_of(model).normalisation
    whole: dict[str, Any] = {
        "mean": own.mean,
        "std": own.std,
        "batch_size": 8,
        "device": data.train.labels.device,
    }
    parts = [evaluate(trained_network(), part, **whole) for part in (data.train, data.selection)]
    sizes = [len(data.train.labels), len(data.selection.labels)]
    for name in ("accuracy", "nll"):  # train and test hold the same images here
        expected = sum(part[name] * size for part, size in zip(parts, sizes, strict=True)) / sum(sizes)
        assert found[name] == pytest.approx(expected, abs=1e-5)
    assert found["images"] == 3 * PER_CLASS


def test_each_class_and_the_confusion_matrix_add_up(model: Path, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "confusion.csv"
    found = evaluated(model, "--data", folder / "test", "--confusion", path)
    matrix = found["confusion"]
    assert [sum(row) for row in matrix] == [PER_CLASS] * 3
    right = sum(matrix[place][place] for place in range(3))
    assert found["accuracy"] == pytest.approx(right / (3 * PER_CLASS))
    for place, each in enumerate(found["classes"]):
        assert each["name"] == CLASSES[place]
        assert each["accuracy"] == pytest.approx(matrix[place][place] / PER_CLASS)
        named = sum(row[place] for row in matrix)
        assert each["precision"] == (pytest.approx(matrix[place][place] / named) if named else None)
    rows = list(csv.reader(path.read_text().splitlines()))
    assert rows[0][1:] == list(CLASSES)
    assert [[int(cell) for cell in row[1:]] for row in rows[1:]] == matrix


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_reliability_diagram_is_drawn_from_bins_that_hold_all_images(
    model: Path, folder: Path, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"reliability{suffix}"
    found = evaluated(model, "--data", folder / "test", "--reliability", path)
    bins = found["reliability"]
    assert sum(each["samples"] for each in bins) == 3 * PER_CLASS
    ece = sum(
        each["samples"] * abs(each["accuracy"] - each["confidence"]) for each in bins if each["samples"]
    )
    assert found["ece"] == pytest.approx(ece / (3 * PER_CLASS), abs=1e-5)
    if suffix == ".png":
        assert Image.open(path).width > 400
    else:
        assert "<svg" in path.read_text()


def test_images_that_cannot_be_read_are_named_and_left_out(model: Path, folder: Path, tmp_path: Path) -> None:
    for name in CLASSES[:2]:
        write_photographs(tmp_path / name, ["a.png"])
    (tmp_path / CLASSES[0] / "broken.png").write_bytes(b"no image")
    found = evaluated(model, "--data", tmp_path)
    assert found["images"] == 2
    assert [Path(each["image"]).name for each in found["unreadable"]] == ["broken.png"]
    owl = found["classes"][2]
    assert (owl["name"], owl["images"], owl["accuracy"]) == ("owl", 0, None)
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="no image to evaluate on that can be read"):
        raise_what(run(model, "--data", tmp_path))


def test_a_person_reads_the_figures_and_a_row_for_each_class(model: Path, folder: Path) -> None:
    result = run(model, "--data", folder / "test")
    assert result.exit_code == 0
    assert "accuracy" in result.output
    assert "ece" in result.output
    assert all(name in result.output for name in CLASSES)


def test_folders_that_are_no_class_of_the_student_are_refused(
    model: Path, folder: Path, tmp_path: Path
) -> None:
    write_photographs(tmp_path / "fox", ["a.png"])
    with pytest.raises(ConfigError, match="does not know: 'fox'; it knows 'cat', 'dog', 'owl'"):
        raise_what(run(model, "--data", tmp_path))
    with pytest.raises(ConfigError, match=r"parts of a data set; name one of them, as .*train"):
        raise_what(run(model, "--data", folder))
    with pytest.raises(ConfigError, match="holds no folders"):
        raise_what(run(model, "--data", tmp_path / "fox"))


def test_options_of_the_other_kind_are_refused(model: Path, folder: Path) -> None:
    with pytest.raises(ConfigError, match="say on which images: --data FOLDER"):
        raise_what(run(model))
    with pytest.raises(ConfigError, match=r"--confusion: goes with --data"):
        raise_what(run("digits", "--confusion", "there.csv"))
    with pytest.raises(ConfigError, match="--trial: of a student that an experiment's record knows"):
        raise_what(run(model, "--data", folder / "test", "--trial", "kd-1"))
    with pytest.raises(ConfigError, match=r"let its name end in \.png or \.svg"):
        raise_what(run(model, "--data", folder / "test", "--reliability", "there.jpg"))


def test_an_experiment_that_has_no_champion_yet_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no exported student: digits has not come to its end"):
        raise_what(run("digits", "--data", folder / "test", "--out", tmp_path))


def test_images_of_an_experiment_must_be_what_the_student_takes(model: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="selection split of digits has classes that the student does not know"
    ):
        raise_what(run(model, "--data", "digits"))
    digits = weights_alone(
        tmp_path / "student.safetensors", trained_network(), classes=[str(n) for n in range(10)]
    )
    with pytest.raises(ConfigError, match=r"images of shape \(1, 8, 8\), the student takes \(3, 12, 12\)"):
        raise_what(run(digits, "--data", "digits"))


def test_the_test_split_is_not_shown_to_a_student_that_no_run_tested(tmp_path: Path) -> None:
    untested = weights_alone(tmp_path / "student.safetensors", trained_network(), metrics={})
    with pytest.raises(ConfigError, match="no run has tested it"):
        raise_what(run(untested, "--data", "digits", "--split", "test"))
