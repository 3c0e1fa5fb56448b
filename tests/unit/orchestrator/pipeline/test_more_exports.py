"""int8, and a file that takes pictures: written, measured on real images, and noted in the card."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import onnx
import pytest
import torch
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.config.loading import load_experiment
from orchestrator.config.sections.export import ExportConfig
from orchestrator.pipeline.shipped import further_files, more_exports
from orchestrator.pipeline.shipped.labelled_images import FolderOfClasses, LabelledImages
from orchestrator.pipeline.shipped.more_exports import (
    MORE_FILES,
    MoreFormat,
    add_format,
    add_formats,
    measure_onnx,
)
from orchestrator.terminal.console import Console
from tests.unit.trainables.export.exported_students import (
    CLASSES,
    card,
    export_tiny,
    photograph,
    trained_network,
    write_photographs,
)
from trainables.config import DataConfig
from trainables.data import load_training
from trainables.errors import CheckpointError, ConfigError, StillhouseError
from trainables.export.model_card import FileLatency, read_intact_card
from trainables.export.opening import open_student
from trainables.export.quantised import write_int8
from trainables.export.stated import FILES, StudentDocument, document_of
from trainables.local_files import file_sha256
from trainables.models.fake_quantised.network import fake_quantise, measure_ranges
from trainables.models.fake_quantised.points import find_points

QUICK = FileLatency(
    batch_1_median_ms=0.1,
    batch_1_p95_ms=0.2,
    batch_64_median_ms=3.0,
    batch_64_p95_ms=4.0,
    device="a CPU",
    threads=1,
    runtime="onnxruntime 1",
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny(tmp_path_factory.mktemp("exports") / "champion", trained_network()).folder


@pytest.fixture
def champion(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "champion"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> FolderOfClasses:
    root = tmp_path_factory.mktemp("pictures")
    for number, name in enumerate(CLASSES):
        write_photographs(root / name, [f"{place}.png" for place in range(8)], seed=10 * number)
    return FolderOfClasses(root, CLASSES)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timing is tested with the profiler."""
    monkeypatch.setattr(more_exports, "onnx_latency", lambda *_: QUICK)


@pytest.mark.parametrize("name", ["onnx_with_preprocessing", "torch_export_with_preprocessing"])
def test_a_picture_of_any_size_gets_the_answer_of_the_ordinary_way(
    champion: Path, pictures: FolderOfClasses, name: MoreFormat
) -> None:
    entry = add_format(champion, name, pictures)
    assert entry.images == len(pictures)
    assert entry.agreement is not None
    assert entry.agreement >= 0.9
    assert entry.max_abs_difference < 0.2  # a level of grey here and there
    student = open_student(champion / MORE_FILES[name])
    assert student.takes_pictures
    for height, width in ((12, 12), (14, 14), (90, 31)):
        assert student.logits_of_picture(photograph(height, width)).shape == (1, 3)


def test_a_picture_that_needs_no_resizing_gets_the_same_answer_to_rounding(
    champion: Path, tmp_path: Path
) -> None:
    for name in CLASSES:
        (tmp_path / "exact" / name).mkdir(parents=True)
        write_exact(tmp_path / "exact" / name / "a.png")
    entry = add_format(champion, "onnx_with_preprocessing", FolderOfClasses(tmp_path / "exact", CLASSES))
    assert entry.max_abs_difference < 1e-4


def write_exact(path: Path) -> None:
    """A picture whose shorter side is what training scaled it to."""
    from PIL import Image

    Image.fromarray(photograph(14, 20)).save(path)


def test_int8_is_calibrated_measured_and_noted(champion: Path, pictures: FolderOfClasses) -> None:
    entry = add_format(champion, "onnx_int8", pictures)
    assert entry.images == len(pictures)
    assert entry.agreement is not None
    assert entry.agreement > 0.5  # an untrained network is seldom sure
    assert entry.accuracy is not None
    assert entry.latency == QUICK
    noted = read_intact_card(champion)
    assert noted is not None
    assert noted.files["onnx_int8"] == entry
    path = champion / MORE_FILES["onnx_int8"]
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert document_of(path) == document_of(champion / FILES["onnx"])
    answered = open_student(path).logits(torch.zeros(5, 3, 12, 12, dtype=torch.uint8))
    assert answered.shape == (5, 3)


def test_a_student_that_was_trained_for_int8_is_measured_as_the_calibrated_one_is(
    champion: Path, pictures: FolderOfClasses
) -> None:
    with pytest.raises(ConfigError, match="takes the experiment"):
        add_format(champion, "onnx_int8_aware", pictures)
    trained = trained_network()
    fake_quantise(trained, find_points(trained, (3, 12, 12)))
    measure_ranges(trained, [torch.randn(64, 3, 12, 12)])
    entry = add_format(champion, "onnx_int8_aware", pictures, lambda: trained)
    assert entry.images == len(pictures)
    assert entry.accuracy is not None
    assert entry.agreement is not None
    assert entry.latency == QUICK
    noted = read_intact_card(champion)
    assert noted is not None
    assert noted.files["onnx_int8_aware"] == entry
    path = champion / MORE_FILES["onnx_int8_aware"]
    assert document_of(path) == document_of(champion / FILES["onnx"])
    assert open_student(path).logits(torch.zeros(5, 3, 12, 12, dtype=torch.uint8)).shape == (5, 3)


def test_a_file_of_an_earlier_version_gets_further_files_that_describe_themselves(
    champion: Path, pictures: FolderOfClasses
) -> None:
    graph = champion / FILES["onnx"]
    document = document_of(graph)
    older = onnx.load(graph)
    del older.metadata_props[:]
    onnx.save(older, graph)
    listed = json.loads((champion / "model_card.json").read_text())
    listed["files"]["onnx"]["sha256"] = file_sha256(graph)
    (champion / "model_card.json").write_text(json.dumps(listed))
    names: tuple[MoreFormat, ...] = ("onnx_int8", "onnx_with_preprocessing")
    for name in names:
        add_format(champion, name, pictures)
        assert document_of(champion / MORE_FILES[name]).classes == document.classes


def test_what_cannot_be_quantised_is_named_and_the_folder_stays_as_it_was(
    champion: Path, pictures: FolderOfClasses, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StillhouseError(
            "student.onnx cannot be quantised to int8: none of its operators has an int8 form"
        )

    monkeypatch.setattr(more_exports, "write_int8", refuse)
    before = sorted(path.name for path in champion.iterdir())
    made, refused = add_formats(champion, ["onnx_int8", "onnx_with_preprocessing"], pictures)
    assert list(made) == ["onnx_with_preprocessing"]
    assert "none of its operators has an int8 form" in refused["onnx_int8"]
    assert sorted(path.name for path in champion.iterdir()) == sorted(
        [*before, MORE_FILES["onnx_with_preprocessing"]]
    )
    assert [path.name for path in champion.parent.iterdir()] == ["champion"]


def test_a_graph_without_anything_to_quantise_is_refused_by_its_operators(tmp_path: Path) -> None:
    given = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["batch", 3])
    found = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 3])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Neg", ["images"], ["logits"])], "bare", [given], [found]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    source = tmp_path / "student.onnx"
    onnx.save(model, source)
    with pytest.raises(StillhouseError, match=r"none of its operators has an int8 form \(Neg\)"):
        write_int8(source, tmp_path / "int8.onnx", [torch.rand(4, 3)], "{}")
    assert not (tmp_path / "int8.onnx").exists()


def test_the_latency_of_the_onnx_file_is_measured_once(
    champion: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert measure_onnx(champion).latency == QUICK
    monkeypatch.setattr(more_exports, "onnx_latency", lambda *_: pytest.fail("measured again"))
    assert measure_onnx(champion).latency == QUICK
    with pytest.raises(CheckpointError, match="no intact export"):
        measure_onnx(champion.parent)


def test_the_command_writes_the_file_beside_the_others(champion: Path, pictures: FolderOfClasses) -> None:
    arguments = ["export", str(champion), "--with-preprocessing", "--data", pictures.name, "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert Path(told["path"]).is_file()
    assert told["images"] == len(pictures)
    answered = CliRunner().invoke(app, ["predict", told["path"], pictures.name, "--json"])
    assert len(json.loads(answered.stdout)["images"]) == len(pictures)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "every champion has a file of onnx"),
        (["--format", "onnx_int8", "--with-preprocessing"], "int8 is written for prepared images alone"),
        (["--format", "onnx_int8"], "say on which images"),
        (["--format", "onnx_int8_aware"], "name the experiment in the place of"),
    ],
)
def test_what_says_nothing_is_refused(champion: Path, options: list[str], told: str) -> None:
    result = CliRunner().invoke(app, ["export", str(champion), *options])
    assert isinstance(result.exception, ConfigError)
    assert told in str(result.exception)


def test_a_run_hands_over_its_selection_split_and_says_what_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DataConfig.from_plain({"name": "digits"})
    data = load_training(config)
    document = StudentDocument.from_plain({**card(classes=list(data.classes)), "input_shape": [1, 8, 8]})
    seen: list[LabelledImages] = []

    def add(
        folder: Path, names: list[MoreFormat], images: LabelledImages, aware: object
    ) -> tuple[dict[str, Any], ...]:
        seen.append(images)
        return {}, dict.fromkeys(names, "none of its operators has an int8 form")

    monkeypatch.setattr(further_files, "document_of", lambda _: document)
    monkeypatch.setattr(further_files, "add_formats", add)
    told = io.StringIO()

    def run_with(**asked: bool) -> Any:
        of_file = SimpleNamespace(data=SimpleNamespace(labelled=config), export=ExportConfig(**asked))
        return SimpleNamespace(experiment=of_file, console=Console(out=told))

    build = cast(Any, None)
    assert further_files.further_files(run_with(), tmp_path, data, None, build) == ({}, {})
    strange = {"refused": "no layer"}
    made, refused = further_files.further_files(run_with(int8=True), tmp_path, data, strange, build)
    assert (made, sorted(refused)) == ({}, ["onnx_int8", "onnx_int8_aware"])
    assert told.getvalue() == (
        "no onnx_int8_aware: no layer\nno onnx_int8: none of its operators has an int8 form\n"
    )
    assert len(seen[0]) == len(data.selection.labels)
    whole, prepared = next(seen[0].pictures(document, 4))
    assert (whole.shape, prepared.shape) == ((8, 8, 1), (1, 8, 8))


def test_an_experiment_asks_for_further_formats_and_says_nothing_of_them_by_default() -> None:
    plain = load_experiment("digits").config
    assert "export" not in plain.plain()
    asked = plain.with_overrides(export={"int8": True, "with_preprocessing": True})
    run: Any = SimpleNamespace(experiment=asked)
    assert further_files.more_formats(run, None) == ["onnx_int8", "onnx_with_preprocessing"]
    assert further_files.more_formats(cast(Any, SimpleNamespace(experiment=plain)), None) == []


def test_a_student_is_exported_as_trained_for_int8_where_its_training_came_to_something() -> None:
    run: Any = SimpleNamespace(experiment=load_experiment("digits").config)
    assert further_files.more_formats(run, {"weights": "w"}) == ["onnx_int8_aware"]
    assert further_files.more_formats(run, {"refused": "no layer"}) == []
    assert further_files.shipped_figures({"files": {"onnx_int8_aware": {"accuracy": 0.5}}}) == {
        "int8_aware_accuracy": 0.5
    }
