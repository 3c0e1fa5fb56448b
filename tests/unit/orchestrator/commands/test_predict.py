"""`stillhouse predict`: classes and probabilities of images, by an exported file alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from orchestrator.cli import app
from orchestrator.pipeline.shipped.named import opened
from orchestrator.pipeline.shipped.predictions import answered, read_in_batches
from tests.unit.trainables.export.exported_students import (
    CLASSES,
    SIDE,
    trained_network,
    weights_alone,
    write_photographs,
)
from trainables.config import DataConfig
from trainables.data import load_training
from trainables.errors import CheckpointError, ConfigError, StillhouseError
from trainables.evaluation.metrics import finite_logits


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return weights_alone(tmp_path_factory.mktemp("model") / "student.safetensors", trained_network())


def predict(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


def document(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_images_of_a_folder_at_any_depth_get_classes_and_probabilities(model: Path, tmp_path: Path) -> None:
    write_photographs(tmp_path / "photos" / "below", ["b.png", "a.png"])
    write_photographs(tmp_path / "photos", ["c.png"], seed=7)
    result = predict(model, tmp_path / "photos", "--json")
    assert result.exit_code == 0, result.output
    found = document(result)
    assert [Path(each["image"]).name for each in found["images"]] == ["c.png", "a.png", "b.png"]
    assert found["classes"] == list(CLASSES)
    for each in found["images"]:
        shares = [entry["probability"] for entry in each["top"]]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1.0, abs=1e-5)
        assert {entry["class"] for entry in each["top"]} == set(CLASSES)
        assert (each["class"], each["probability"]) == (each["top"][0]["class"], shares[0])
    assert found["unreadable"] == []


def test_a_person_reads_a_table_with_as_many_classes_as_were_asked_for(model: Path, tmp_path: Path) -> None:
    (path,) = write_photographs(tmp_path, ["cat.png"])
    result = predict(model, path, "--top", "2")
    assert result.exit_code == 0
    assert "cat.png" in result.output
    row = next(line for line in result.output.splitlines() if str(path) in line)
    assert sum(name in row.replace(str(path), "") for name in CLASSES) == 2


def test_damaged_images_are_named_and_the_others_are_answered(model: Path, tmp_path: Path) -> None:
    paths = write_photographs(tmp_path, ["a.png", "b.png"])
    cut = tmp_path / "cut.png"
    cut.write_bytes(paths[0].read_bytes()[:60])
    text = tmp_path / "note.png"
    text.write_text("no image")
    result = predict(model, tmp_path, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert [Path(each["image"]).name for each in found["images"]] == ["a.png", "b.png"]
    assert [Path(each["image"]).name for each in found["unreadable"]] == ["cut.png", "note.png"]
    assert all(each["why"] for each in found["unreadable"])
    assert predict(model, cut).exit_code == 2  # nothing could be answered


def test_a_file_is_prepared_as_the_data_module_prepared_it_for_training(model: Path, tmp_path: Path) -> None:
    for split, seed in (("train", 0), ("test", 50)):
        for number, name in enumerate(CLASSES):
            write_photographs(
                tmp_path / split / name, [f"{place}.png" for place in range(6)], seed=seed + 10 * number
            )
    config = DataConfig.from_plain(
        {
            "name": "image_folder",
            "root": str(tmp_path),
            "image_size": SIDE,
            "resize": 14,
            "selection_fraction": 0.5,
        }
    )
    data = load_training(config)
    every = sorted(
        (tmp_path / "train").rglob("*.png"), key=lambda path: path.relative_to(tmp_path).as_posix()
    )
    files = [every[place] for place in data.selection.ids.tolist()]
    with opened(str(model)) as student:
        own = student.document.normalisation
        trained = finite_logits(_network(model), data.selection.images[:], own.mean, own.std)
        found = torch.cat([answered(student, read) for _, read in read_in_batches(student, files)])
    assert torch.equal(found, trained.detach())


def _network(model: Path) -> torch.nn.Module:
    with opened(str(model)) as student:
        assert isinstance(student.forward, torch.nn.Module)
        return student.forward


def test_grey_and_transparent_files_are_read_as_colours(model: Path, tmp_path: Path) -> None:
    shades = (np.arange(400) % 256).astype(np.uint8).reshape(20, 20)
    Image.fromarray(shades).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([shades] * 4)).save(tmp_path / "alpha.png")
    found = document(predict(model, tmp_path, "--json"))["images"]
    alpha, grey = found
    assert alpha["top"] == grey["top"]


def test_a_student_of_a_factorys_data_is_asked_with_a_word_of_what_is_not_known(tmp_path: Path) -> None:
    own = {"channels": "as the data set's factory gives them", "resizing": None}
    model = weights_alone(tmp_path / "student.safetensors", trained_network(), preparation=own)
    (image,) = write_photographs(tmp_path / "photos", ["a.png"])
    result = predict(model, image)
    assert "files were read as RGB" in result.output
    assert f"had another size than {SIDE}x{SIDE} pixels" in result.output


def test_the_schema_of_what_a_file_says_of_itself_is_printed() -> None:
    result = CliRunner().invoke(app, ["schema", "student"])
    assert {"classes", "normalisation", "preparation", "input_shape"} <= json.loads(result.stdout)[
        "properties"
    ].keys()


@pytest.mark.parametrize(
    ("place", "error", "told"),
    [
        ("nowhere.png", ConfigError, r"there is no .*nowhere\.png"),
        ("empty", ConfigError, "holds no image, at any depth"),
    ],
)
def test_places_without_images_are_named(
    model: Path, tmp_path: Path, place: str, error: type[StillhouseError], told: str
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(error, match=told):
        raise_what(predict(model, tmp_path / place))


def raise_what(result: Result) -> None:
    """The error of a command, which `main` would tell."""
    assert result.exception is not None
    raise result.exception


def test_a_model_that_is_none_is_named(tmp_path: Path) -> None:
    (image,) = write_photographs(tmp_path, ["a.png"])
    with pytest.raises(CheckpointError, match=r"is no exported student: it ends in none of \.safetensors"):
        raise_what(predict(image, image))
    with pytest.raises(CheckpointError, match=r"there is no file .*student\.onnx"):
        raise_what(predict(tmp_path / "student.onnx", image))


def test_a_registered_model_whose_store_nobody_names_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    (image,) = write_photographs(tmp_path, ["a.png"])
    with pytest.raises(ConfigError, match=r"no run below \./out has one.*--tracking-uri"):
        raise_what(predict("models:/stillhouse-digits@champion", image))
    with pytest.raises(ConfigError, match="no store that Stillhouse writes to"):
        raise_what(predict("models:/stillhouse-digits@champion", image, "--tracking-uri", "ftp://there"))
