"""What is told of networks and weights of libraries before anything is trained."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import torchvision
import transformers
from torch import Tensor

from orchestrator.config.loading import load_experiment
from orchestrator.pipeline.brought_weights import brought_weights
from orchestrator.pipeline.context import quiet_run
from orchestrator.pipeline.finished import run_key
from orchestrator.pipeline.preflight import Findings, preflight, preflight_key
from orchestrator.pipeline.preflight_networks import NetworkChecks
from orchestrator.pipeline.teacher_stage import teacher_request
from orchestrator.terminal.console import Console
from tests.unit.trainables.data.image_folders import CLASSES as IMAGE_CLASSES
from tests.unit.trainables.data.image_folders import write_folder
from trainables.data import load_training
from trainables.errors import ConfigError

TASK = "tests.unit.orchestrator.pipeline.preflight_task"
EXPERIMENT = f"""\
name: task
data: {{factory: "{TASK}:dataset"}}
teacher: {{model: TEACHER}}
student: STUDENT
views: {{weak: {{views: 1, recipe: []}}}}
space: kd
"""
OF_TIMM = "{name: timm, variant: test_resnet}"
OF_TRANSFORMERS = "{name: transformers, variant: my_resnet}"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def _without_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NetworkChecks, "export", lambda *_: None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of transformers beside the experiment's file."""
    settings = transformers.ResNetConfig(
        embedding_size=4, hidden_sizes=[4], depths=[1], layer_type="basic", id2label=dict(enumerate("abcd"))
    )
    transformers.ResNetForImageClassification(settings).save_pretrained(tmp_path / "my_resnet")
    return tmp_path / "my_resnet"


def written(*, teacher: str = "{name: mlp}", student: str = "{name: mlp}") -> str:
    Path("task.yaml").write_text(EXPERIMENT.replace("TEACHER", teacher).replace("STUDENT", student))
    return "task.yaml"


def look(file: str) -> Findings:
    with quiet_run(load_experiment(file), Console(out=io.StringIO())) as run:
        return preflight(run)


def keys(file: str) -> tuple[str, str, str]:
    with quiet_run(load_experiment(file), Console(out=io.StringIO())) as run:
        return preflight_key(run), run_key(run.loaded, run.ledger), run.student.plain()["variant"]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("student", [OF_TIMM, OF_TRANSFORMERS])
def test_a_student_of_a_library_is_tried_exported_and_its_adapted_stem_is_said(student: str) -> None:
    found = look(written(student=student))
    assert found.problems == []
    assert any("its first convolution takes grey images" in note for note in found.notes)


@pytest.mark.usefixtures("_without_export")
def test_images_that_are_too_small_for_a_network_are_said_with_what_to_write() -> None:
    found = look(written(student="{name: torchvision, variant: resnet18}"))
    (note,) = [note for note in found.notes if "of images of 8 pixels" in note]
    assert "see 1x1" in note
    assert "`resolution: 64`" in note


@pytest.mark.usefixtures("_without_export")
def test_a_network_of_a_fixed_image_size_is_refused_by_name_with_what_to_write() -> None:
    (problem,) = look(written(student="{name: timm, variant: test_vit}")).problems
    assert problem.startswith("student test_vit fails in evaluation mode")
    assert "`arguments: {img_size: SIDE}`" in problem


def test_a_folder_of_transformers_lies_beside_the_experiments_file(folder: Path) -> None:
    model = load_experiment(written(teacher=OF_TRANSFORMERS)).config.teacher.network
    assert model.folder == folder
    model = load_experiment(written(student="{name: transformers, variant: someone/resnet}")).config.student
    assert (model.variant, model.folder) == ("someone/resnet", None)


def test_a_folder_of_transformers_is_known_by_its_configuration_wherever_it_lies(folder: Path) -> None:
    first = keys(written(student=OF_TRANSFORMERS))
    moved = folder.rename(folder.with_name("moved"))
    again = keys(written(student=OF_TRANSFORMERS.replace("my_resnet", "moved")))
    assert again[:2] == first[:2]
    assert again[2] != first[2]
    config = moved / "config.json"
    config.write_text(config.read_text().replace('"relu"', '"gelu"'))
    changed = keys(written(student=OF_TRANSFORMERS.replace("my_resnet", "moved")))
    assert not set(changed[:2]) & set(first[:2])


def in_torch_cache(cache: Path, monkeypatch: pytest.MonkeyPatch, state: Mapping[str, Tensor]) -> None:
    """torchvision's published weights of squeezenet1_1, as this machine's cache has them."""
    (cache / "checkpoints").mkdir(parents=True)
    torch.save(state, cache / "checkpoints" / "squeezenet1_1-b8a52dc0.pth")
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(cache))


@pytest.mark.usefixtures("_without_export")
def test_a_student_starts_from_published_weights_and_a_validation_leaves_none_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = torchvision.models.squeezenet1_1().state_dict()
    in_torch_cache(tmp_path / "cache", monkeypatch, state)
    student = "{name: torchvision, variant: squeezenet1_1, resolution: 64, checkpoint: published}"
    found = look(written(student=student))
    assert found.problems == []
    (note,) = [note for note in found.notes if "starts from" in note]
    assert "starts from published, but for its head, which is fresh (network.classifier.1.weight" in note
    assert not (tmp_path / "out").exists()


def test_published_weights_are_those_of_the_student_that_the_space_fixes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_torch_cache(tmp_path / "cache", monkeypatch, {})
    space = (
        "name: one\nobjectives: {kd: {temperature: {uniform: [1, 8]}}}\nstudent: {variant: squeezenet1_1}\n"
    )
    (tmp_path / "one.yaml").write_text(space)
    file = written(student="{name: torchvision, variant: squeezenet1_0, checkpoint: published}")
    Path(file).write_text(Path(file).read_text().replace("space: kd", "space: one.yaml"))
    with quiet_run(load_experiment(file), Console(out=io.StringIO())) as run:
        assert Path(str(run.start_file)).name == "squeezenet1_1-b8a52dc0.pth"


def test_a_folders_path_in_a_space_is_refused_in_a_line(tmp_path: Path) -> None:
    text = "name: two\nobjectives: {kd: {}}\nstudent: {variant: {choice: [./ra, ./rb]}}\n"
    (tmp_path / "two.yaml").write_text(text)
    file = written(student=OF_TIMM)
    Path(file).write_text(Path(file).read_text().replace("space: kd", "space: two.yaml"))
    with pytest.raises(ConfigError, match=r"student.*'\./ra', a folder's path; a space has no folder"):
        load_experiment(file)


@pytest.mark.usefixtures("_without_export")
def test_published_weights_that_cannot_be_had_are_one_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "empty"))
    monkeypatch.setattr("trainables.models.foreign.published.why_unreachable", lambda _: "no network here")
    student = "{name: torchvision, variant: squeezenet1_1, resolution: 64, checkpoint: published}"
    (problem,) = look(written(student=student)).problems
    assert "cannot be reached (no network here)" in problem


@pytest.mark.usefixtures("_without_export")
@pytest.mark.parametrize("checkpoint", ["published", "my_resnet"])
def test_a_folder_of_transformers_teaches_with_its_own_weights_and_normalisation(
    folder: Path, checkpoint: str
) -> None:
    transformers.ViTImageProcessor().save_pretrained(folder)
    found = look(written(teacher=f"{OF_TRANSFORMERS}, checkpoint: {checkpoint}"))
    assert found.problems == []
    (note,) = [note for note in found.notes if note.startswith("teacher: right on")]
    assert note.endswith(f"({checkpoint if checkpoint == 'published' else folder / 'model.safetensors'})")


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_published_weights_of_a_folder_that_were_changed_make_another_run(folder: Path, role: str) -> None:
    network = OF_TRANSFORMERS if role == "teacher" else OF_TRANSFORMERS[:-1]
    if role == "teacher":
        file = written(teacher=f"{network}, checkpoint: published")
    else:
        file = written(student=f"{network}, checkpoint: published}}")
    loaded = load_experiment(file)
    with quiet_run(loaded, Console(out=io.StringIO())) as run:
        first = run_key(loaded, run.ledger)
        assert run_key(loaded, run.ledger) == first
        with (folder / "model.safetensors").open("ab") as weights:
            weights.write(b"more")
        assert run_key(loaded, run.ledger) != first


def test_what_stands_beside_a_loaded_teachers_weights_is_in_all_keys(folder: Path) -> None:
    given = folder.rename(folder.with_name("given"))
    teacher = "{name: torchvision, variant: squeezenet1_1}, checkpoint: given"

    def all_keys() -> list[str]:
        with quiet_run(load_experiment(written(teacher=teacher)), Console(out=io.StringIO())) as run:
            return [preflight_key(run), run_key(run.loaded, run.ledger), teacher_request(run)[1]]

    transformers.ViTImageProcessor(image_mean=[0.5] * 3).save_pretrained(given)
    found = [all_keys()]
    assert all_keys() == found[0]
    transformers.ViTImageProcessor(image_mean=[0.3] * 3).save_pretrained(given)
    found.append(all_keys())
    config = given / "config.json"
    config.write_text(config.read_text().replace('"a"', '"z"'))
    found.append(all_keys())
    for three in zip(*found, strict=True):
        assert len(set(three)) == 3


def test_published_goes_with_networks_of_libraries() -> None:
    with pytest.raises(ConfigError, match=r"student: `checkpoint: published` goes with `name: torchvision`"):
        load_experiment(written(student="{name: mlp, checkpoint: published}"))


def test_a_folder_without_weights_is_told_with_its_place(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        ConfigError, match=r"teacher\.checkpoint: found 'my_resnet'; allowed: an existing file"
    ):
        load_experiment(written(teacher=f"{OF_TRANSFORMERS}, checkpoint: my_resnet"))


def test_a_model_in_mlflow_needs_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    loaded = load_experiment(written(student="{name: mlp, checkpoint: 'models:/pets/3'}"))
    with pytest.raises(
        ConfigError, match=r"models:/pets/3 is in MLflow, and nobody says in which; write `rec"
    ):
        brought_weights(loaded, "models:/pets/3", loaded.config.student, Path("weights"))


@pytest.mark.usefixtures("_without_export", "folder")
@pytest.mark.parametrize(
    ("recipe", "problem"),
    [
        (
            "{freeze: [resnet.embeder]}",
            "nothing in ResNetForImageClassification is called 'resnet.embeder'; near",
        ),
        (
            "{lr_groups: {encoder: 0.1}}",
            "training.lr_groups: nothing in ResNetForImageClassification is called",
        ),
        ("{freeze: [resnet.embedder], lr_groups: {backbone: 0.1}}", None),
    ],
)
def test_parts_to_freeze_are_looked_up_before_anything_is_trained(recipe: str, problem: str | None) -> None:
    file = written(student=f"{OF_TRANSFORMERS[:-1]}, checkpoint: published}}")
    Path(file).write_text(f"{Path(file).read_text()}training: {recipe}\n")
    found = look(file)
    assert len(found.problems) == (problem is not None)
    assert all(told.startswith("student ") and problem and problem in told for told in found.problems)


def test_nothing_random_is_frozen_and_no_teacher_is() -> None:
    text = Path(written(student=OF_TIMM)).read_text()
    Path("task.yaml").write_text(f"{text}training: {{freeze: [backbone]}}\n")
    with pytest.raises(
        ConfigError, match=r"training\.freeze: found parts to freeze, .* `student\.checkpoint`"
    ):
        load_experiment("task.yaml")
    Path("task.yaml").write_text(
        text.replace("{name: mlp}}", "{name: mlp}, training: {lr_groups: {head: 2}}}")
    )
    with pytest.raises(ConfigError, match="`freeze` and `lr_groups` are for students"):
        load_experiment("task.yaml")


PICTURES = "data: {name: image_folder, root: pictures}"
OWN_WEIGHTS = f"{OF_TRANSFORMERS}, checkpoint: published"


def of_pictures(teacher: str, *, size: str = "") -> str:
    """An experiment with a folder of colour images of two classes, 8 pixels high or more."""
    if not Path("pictures").exists():
        write_folder(Path("pictures"), suffix="png")
    text = EXPERIMENT.replace(f'data: {{factory: "{TASK}:dataset"}}', PICTURES.replace("}", f"{size}}}"))
    Path("task.yaml").write_text(text.replace("TEACHER", teacher).replace("STUDENT", "{name: mlp}"))
    return "task.yaml"


@pytest.fixture
def teacher_of_pictures(folder: Path) -> Path:
    """A teacher of these classes that is shown 12 pixels."""
    settings = transformers.AutoConfig.from_pretrained(folder)
    settings.id2label = dict(enumerate(sorted(IMAGE_CLASSES)))
    transformers.ResNetForImageClassification(settings).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 12, "width": 12}).save_pretrained(folder)
    return folder


@pytest.mark.usefixtures("teacher_of_pictures", "_without_export")
def test_a_folder_of_images_gets_the_size_that_its_teacher_states() -> None:
    file = of_pictures(OWN_WEIGHTS)
    data = load_experiment(file).config.data
    assert (data.image_size, data.resize) == (12, "stretch")
    found = look(file)
    assert found.problems == []
    assert not any("made for images" in note for note in found.notes)


@pytest.mark.parametrize(
    ("stated", "problem"),
    [
        (
            {"size": {"shortest_edge": 16}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}},
            "`resize` must be at least `image_size`",
        ),
        ({"size": {"height": 2048, "width": 2048}}, "less than or equal to 1024"),
    ],
)
def test_a_size_that_a_teacher_states_and_is_not_taken_is_one_line(
    stated: dict[str, object], problem: str, teacher_of_pictures: Path
) -> None:
    (teacher_of_pictures / "preprocessor_config.json").write_text(json.dumps(stated))
    with pytest.raises(ConfigError, match=r"task\.yaml:2: data: found no `image_size`") as told:
        load_experiment(of_pictures(OWN_WEIGHTS))
    assert problem in str(told.value)


@pytest.mark.parametrize("second", ["12", "16"])
def test_several_teachers_state_a_size_where_all_state_the_same(
    second: str, teacher_of_pictures: Path
) -> None:
    other = Path(shutil.copytree(teacher_of_pictures, "other"))
    stated = {"size": {"height": int(second), "width": int(second)}}
    (other / "preprocessor_config.json").write_text(json.dumps(stated))
    file = Path(of_pictures(OWN_WEIGHTS))
    one = f"{{model: {OWN_WEIGHTS}}}"
    several = f"teachers: [{one}, {one.replace('my_resnet', 'other')}]"
    file.write_text(file.read_text().replace(f"teacher: {one}", several))
    if second == "12":
        assert load_experiment(str(file)).config.data.image_size == 12
        return
    with pytest.raises(ConfigError, match="of several teachers all state the same"):
        load_experiment(str(file))


@pytest.mark.usefixtures("teacher_of_pictures", "_without_export")
def test_images_of_another_size_than_the_teachers_are_said_with_what_to_write() -> None:
    file = of_pictures(OWN_WEIGHTS, size=", image_size: 8")
    assert load_experiment(file).config.data.image_size == 8
    (note,) = [note for note in look(file).notes if "made for images" in note]
    assert "images of 12 pixels (stretched to 12x12), and shown 8; `data: {image_size: 12}`" in note
    shown_its_own = OWN_WEIGHTS.replace("my_resnet", "my_resnet, resolution: 12", 1)
    assert not any(
        "made for images" in n for n in look(of_pictures(shown_its_own, size=", image_size: 8")).notes
    )


@pytest.mark.usefixtures("teacher_of_pictures", "_without_export")
def test_another_rule_of_resizing_than_the_teachers_is_said_with_what_to_write() -> None:
    (note,) = [n for n in look(of_pictures(OWN_WEIGHTS, size=", image_size: 12")).notes if "made for" in n]
    assert (
        "were stretched to 12x12, and shown some that are scaled to 12 and cut; `data: {resize: stretch}`"
        in note
    )
    notes = look(of_pictures(OWN_WEIGHTS, size=", image_size: 12, resize: stretch")).notes
    assert not any("made for images" in note for note in notes)


def test_a_folder_of_images_without_any_size_is_refused_with_its_place() -> None:
    with pytest.raises(ConfigError, match=r"task\.yaml:2: data: found no `image_size`"):
        load_experiment(of_pictures("{name: mlp}"))


@pytest.mark.usefixtures("folder", "_without_export")
def test_a_teacher_of_transformers_without_a_checkpoint_says_that_it_is_trained_here() -> None:
    notes = look(written(teacher=OF_TRANSFORMERS)).notes
    assert any("trained from random weights; `checkpoint: published` takes its own" in n for n in notes)


def test_stages_are_known_by_the_content_of_published_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = torchvision.models.squeezenet1_1(num_classes=4).state_dict()
    in_torch_cache(tmp_path / "cache", monkeypatch, state)
    model = "{name: torchvision, variant: squeezenet1_1, resolution: 64}"
    file = written(
        teacher=f"{model}, checkpoint: published", student=f"{model[:-1]}, checkpoint: published}}"
    )
    found = []
    for change in (0.0, 0.0, 1.0):
        state["classifier.1.bias"] += change
        torch.save(state, tmp_path / "cache" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth")
        with quiet_run(load_experiment(file), Console(out=io.StringIO())) as run:
            assert run.start is not None
            found.append((teacher_request(run)[1], run.start.sha256))
    assert found[0] == found[1]
    assert not set(found[0]) & set(found[2])


def test_a_space_may_vary_the_students_variant(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(
        "name: small\nobjectives: {kd: {}}\nstudent: {variant: {choice: [test_resnet, test_convnext]}}\n"
    )
    text = Path(written(student=OF_TIMM)).read_text().replace("space: kd", "space: small.yaml")
    Path("task.yaml").write_text(text)
    loaded = load_experiment("task.yaml")
    with quiet_run(loaded, Console(out=io.StringIO())) as run:
        checks = NetworkChecks(run, load_training(run.experiment.data))
        assert [student.variant for student in checks.students()] == ["test_resnet", "test_convnext"]
    Path("task.yaml").write_text(text.replace(OF_TIMM, "{name: mlp}"))
    with pytest.raises(
        ConfigError, match="`variant` goes with `name: torchvision`, `timm` or `transformers`"
    ):
        load_experiment("task.yaml")
    Path("task.yaml").write_text(text.replace(OF_TIMM, f"{OF_TIMM[:-1]}, checkpoint: published}}"))
    with pytest.raises(
        ConfigError, match=r"space small varies student\.variant, and weights fit one network"
    ):
        load_experiment("task.yaml")
