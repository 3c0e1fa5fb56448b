"""Each kind of bad input is told before anything is trained, in one line that says what to do."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.config.loading import load_experiment
from orchestrator.pipeline import preflight as preflight_module
from orchestrator.pipeline.context import Run, quiet_run
from orchestrator.pipeline.preflight import Findings, leaks_found, preflight, preflight_key, preflight_stage
from orchestrator.pipeline.preflight_networks import NetworkChecks
from orchestrator.pipeline.stages import Stages
from orchestrator.records.ledger import Ledger
from orchestrator.terminal.console import Console
from tests.unit.trainables.data.image_folders import write_folder
from tests.unit.trainables.models.onnx_files import write
from trainables.cache.format.storage import Place
from trainables.config.data import SplitFacts
from trainables.errors import ConfigError
from trainables.training.train_teacher import TeacherFacts

TASK = "tests.unit.orchestrator.pipeline.preflight_task"
EXPERIMENT = f"""\
name: task
data: {{factory: "{TASK}:dataset"}}
teacher: {{model: {{factory: "{TASK}:network"}}}}
student: {{factory: "{TASK}:network"}}
views: {{weak: {{views: 1, recipe: []}}}}
space: kd
"""
PICTURES = """\
name: pictures
data: {name: image_folder, root: pictures, image_size: 8MORE}
teacher: {model: {name: mlp}}
student: {name: mlp}
views: {weak: {views: 1, recipe: []}}
space: kd
"""

Look = Callable[[str], Findings]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def _without_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing takes seconds; two tests do it."""
    monkeypatch.setattr(NetworkChecks, "export", lambda *_: None)


def look(text: str) -> Findings:
    Path("task.yaml").write_text(text)
    with quiet_run(load_experiment("task.yaml"), Console(out=io.StringIO())) as run:
        return preflight(run)


def with_student(factory: str) -> str:
    own = f'student: {{factory: "{TASK}:'
    return EXPERIMENT.replace(f"{own}network", f"{own}{factory}")


def with_teacher(factory: str, text: str = EXPERIMENT, *, more: str = "") -> str:
    own = f'teacher: {{model: {{factory: "{TASK}:'
    return text.replace(f'{own}network"}}', f'{own}{factory}"}}{more}')


def with_data(factory: str, text: str = EXPERIMENT) -> str:
    return text.replace(f"{TASK}:dataset", f"{TASK}:{factory}")


def only_problem(text: str) -> str:
    (problem,) = look(text).problems
    assert "\n" not in problem
    return problem


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        ("two_logits", "two_logits': Answering returns a tuple .* 0, 1 are all of shape Bx4; .* `output: 0`"),
        (
            "a_text",
            "a_text': Answering returns a str in evaluation mode, in which nothing is called `logits`",
        ),
        ("of_five_classes", r"shape \(4, 5\) .* shape \(4, 4\), a number for each class of the data set"),
        ("wrong_inside", "wrong_inside' fails in evaluation mode .* AttributeError.*preflight_task.py, line"),
        ("raising", r"raising' raised KeyError: 'weights.bin' \(preflight_task.py, line \d+\); mend it"),
        ("create_model", "create_model' raised TypeError.* where a library's builder wants `num_classes`"),
        ("no_such", "has no function 'no_such'"),
    ],
)
@pytest.mark.usefixtures("_without_export")
def test_a_student_that_cannot_be_trained_is_named(factory: str, says: str) -> None:
    problem = only_problem(with_student(factory))
    assert f"factory '{TASK}:{factory}'" in problem
    assert re.search(says, problem), problem


@pytest.mark.usefixtures("_without_export")
def test_a_student_without_features_is_named_where_they_would_rank_it() -> None:
    ranked = "name: s\nobjectives: {kd: {temperature: {uniform: [1, 8]}}}\nsearch: {rank_by: knn_accuracy}\n"
    Path("space.yaml").write_text(ranked)
    fully_convolutional = with_student("fully_convolutional")
    problem = only_problem(fully_convolutional.replace("space: kd", "space: space.yaml"))
    assert f"factory '{TASK}:fully_convolutional': Sequential has no feature 'embedding'" in problem
    assert "set search.rank_by to accuracy" in problem
    assert not look(fully_convolutional).problems
    assert not look(EXPERIMENT.replace("space: kd", "space: space.yaml")).problems


@pytest.mark.usefixtures("_without_export")
def test_a_student_without_the_maps_that_an_objective_compares_is_told_which_objectives_fit_it() -> None:
    Path("space.yaml").write_text("name: s\nobjectives: {kd: {}, rkd: {}, fitnet: {}, tat: {}}\n")
    text = re.sub("student: .*", "student: {name: mlp}", EXPERIMENT).replace("space: kd", "space: space.yaml")
    found = look(text).problems  # the teacher has none either
    assert [problem.startswith("the teacher: ") for problem in found].count(True) == 1
    text = re.sub(r'model: \{factory: "[^"]*"\}', "model: {name: convnet}", text)
    problem = only_problem(text)
    said = "objective fitnet of space s: Mlp has no feature 'stage2'; it has embedding; name the part of the"
    assert said in problem
    assert re.search(r"ask for the embedding alone: .*rkd.*; for logits alone: kd, dkd", problem)
    assert "fitnet" not in problem.partition("alone")[2]
    assert "tat" not in problem.partition("alone")[2]
    Path("space.yaml").write_text("name: s\nobjectives: {kd: {}, rkd: {}, fitnet: {hint: embedding}}\n")
    assert not look(text).problems


def test_networks_that_give_their_logits_in_an_object_or_a_tuple_are_served() -> None:
    found = look(with_teacher("with_logits", with_student("a_tuple")))
    assert found.problems == []


@pytest.mark.usefixtures("_without_export")
def test_a_teacher_of_other_classes_is_told_before_it_is_asked() -> None:
    problem = only_problem(with_teacher("brings_five_classes", more=", pretrained: true"))
    assert problem.startswith(
        f"teacher factory '{TASK}:brings_five_classes' returns torch.float32 of shape (4, 5)"
    )


def test_a_student_that_cannot_be_exported_is_named() -> None:
    problem = only_problem(with_student("depends_on_its_images"))
    assert problem.startswith(f"student factory '{TASK}:depends_on_its_images': cannot export the student: ")
    assert problem.endswith("must be traceable by torch.export with any batch size")
    assert len(problem) < 600


@pytest.mark.parametrize(
    ("bound", "is_kept"), [("params <= 600", True), ("params <= 500 and params > 1", False)]
)
@pytest.mark.usefixtures("_without_export")
def test_a_bound_on_parameters_that_no_student_of_the_space_keeps_is_told(bound: str, is_kept: bool) -> None:
    """An mlp of 8 units on 8x8 grey images of four classes has 65 x 8 + 9 x 4 = 556 parameters."""
    Path("space.yaml").write_text("name: s\nobjectives: {kd: {}}\nstudent: {width: {choice: [8, 64]}}\n")
    text = with_teacher("network").replace("space: kd", "space: space.yaml")
    text = re.sub("student: .*", "student: {name: mlp}", text) + f'pick: {{where: "{bound}"}}\n'
    problems = look(text).problems
    assert len(problems) == (0 if is_kept else 1)
    if problems:
        assert problems[0].startswith(
            "pick.where asks for params <= 500 and params > 1, and the students of the space have 556 to "
            "4,420 parameters: none could be picked"
        )


def test_a_selection_split_of_one_image_is_enough_for_an_export_and_is_told() -> None:
    found = look(with_data("one_to_select_by"))
    assert found.problems == []
    assert any("the selection split has 1 samples for 4 classes: too few to rank" in n for n in found.notes)


def test_a_student_of_each_kind_that_the_space_may_propose_is_exported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exported: list[str] = []
    monkeypatch.setattr(NetworkChecks, "export", lambda _, config: exported.append(str(config.name)))
    Path("space.yaml").write_text(
        "name: kinds\nobjectives: {kd: {}}\nstudent: {name: {choice: [mlp, convnet]}}\n"
        "search: {algorithm: random}\nscheduler: {name: fifo}\n"
    )
    own = f'student: {{factory: "{TASK}:network"}}'
    look(EXPERIMENT.replace(own, "student: {name: mlp}").replace("space: kd", "space: space.yaml"))
    assert sorted(exported) == ["convnet", "mlp"]


def test_a_task_without_fault_has_no_problem_and_says_what_was_seen() -> None:
    found = look(EXPERIMENT)
    assert found.problems == []
    (note,) = [note for note in found.notes if note.startswith("data: ")]
    assert note.endswith("selection and 20 test samples of 4 classes, images 1x8x8")


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        ("test_label_of_no_class", "test sample 19 has the label 7; the training part has 4 classes"),
        ("labels_from_one", "no training sample has the label 0, and the largest is 4"),
        ("outlier", "no training sample has the label 4, 5, 6, 7, 8, ..., and the largest is 255 (sample 3)"),
        ("no_test_part", "no_test_part' raised FileNotFoundError: no test.npz"),
        (
            "other_names",
            "the test part names 4 classes (['bee', 'ant', 'cat', 'dog'] ...), the training part",
        ),
        ("other_size", "test images have the shape (1, 6, 6), training images (1, 8, 8)"),
    ],
)
@pytest.mark.usefixtures("_without_export")
def test_data_of_which_one_part_is_wrong_are_told(factory: str, says: str) -> None:
    assert says in only_problem(with_data(factory))


@pytest.mark.usefixtures("_without_export")
def test_both_parts_and_all_networks_are_looked_at_whatever_is_wrong_before() -> None:
    training, test = look(with_data("raising_sample")).problems
    assert "split train, index 7: the data set raised OSError: disk gone" in training
    assert "split test, index 7" in test
    text = with_data("test_label_of_no_class", with_student("two_logits"))
    assert len(look(with_teacher("two_logits", text)).problems) == 3


@pytest.mark.usefixtures("_without_export")
def test_a_named_class_without_samples_is_said_and_does_no_harm() -> None:
    found = look(with_data("a_class_without_samples"))
    assert found.problems == []
    assert "data: 1 of 5 classes have no training sample: eel" in found.notes


@pytest.mark.usefixtures("_without_export")
def test_a_teacher_that_brings_its_weights_is_asked_about_some_images() -> None:
    text = with_teacher("brings_its_weights", more=", pretrained: true")
    found = look(text)
    assert found.problems == []
    assert any(note.startswith("teacher: right on ") for note in found.notes)
    assert "write it below `teacher`" in only_problem(text.replace("brings_its_weights", "network"))


@pytest.mark.usefixtures("_without_export")
def test_a_teacher_whose_classes_stand_in_another_order_is_suspected_before_anything_is_trained() -> None:
    brought = ", pretrained: true, normalisation: data"
    told = {
        places: with_teacher("knowing", more=brought).replace(
            'knowing"', f'knowing", arguments: {{places: {places}}}'
        )
        for places in (0, 1)
    }
    assert "teacher: right on 100.00 % of 19 selection images" in str(look(told[0]).notes)
    assert (
        "right on 0.00 % of 19 images of the selection split, no more often than by chance"
        in only_problem(told[1])
    )
    named = told[1].replace("normalisation: data", "normalisation: data, classes: ['3', '0', '1', '2']")
    assert "teacher: right on 100.00 % of 19 selection images" in str(look(named).notes)
    lacking = named.replace("'3'", "three")
    assert "has 4 classes, and none of them is called '3'" in only_problem(lacking)


@pytest.mark.usefixtures("_without_export")
def test_a_teacher_in_an_onnx_file_is_tried_and_what_is_done_to_its_answers_is_said() -> None:
    write(Path("t.onnx"), n_outputs=4, last="Softmax", axis=1)
    text = EXPERIMENT.replace(
        f'{{model: {{factory: "{TASK}:network"}}}}', "{checkpoint: t.onnx, normalisation: data}"
    )
    found = look(text)
    assert "teacher: its Softmax is cut off" in found.notes
    assert any(re.match(r"teacher: right on .* of 19 selection images \(.*t\.onnx\)", n) for n in found.notes)
    write(Path("t.onnx"), n_outputs=5)
    assert "5 outputs, and 4 classes are known; name all its outputs" in only_problem(text)
    write(Path("t.onnx"), n_outputs=4, shape=("b", 3, 8, 8))
    assert "takes images of shape ?x3x8x8; the data's have 1 channels" in only_problem(text)


def starting_from(name: str, n_classes: int = 4, *, units: int = 64) -> str:
    torch.save(nn.Sequential(nn.Linear(units, 5), nn.Linear(5, n_classes)).state_dict(), name)
    own = f'student: {{factory: "{TASK}:'
    return EXPERIMENT.replace(f'{own}network"', f'{own}two_layers", checkpoint: {name}')


@pytest.mark.usefixtures("_without_export")
def test_what_a_student_starts_from_is_tried_and_said() -> None:
    found = look(starting_from("same.pt"))
    assert found.problems == []
    place = Path("same.pt").absolute()
    assert f"student factory '{TASK}:two_layers': starts from {place}, head and all" in found.notes
    notes = look(starting_from("other.pt", 7)).notes
    assert any(note.endswith("but for its head, which is fresh (1.weight, 1.bias)") for note in notes)
    problem = only_problem(starting_from("wide.pt", 7, units=65))
    assert "wide.pt does not fit TwoLayers: 1 of another shape: 0.weight is (5, 65)" in problem


def keys(text: str) -> tuple[str, str]:
    """Of the search and of the preflight."""
    Path("task.yaml").write_text(text)
    with quiet_run(load_experiment("task.yaml"), Console(out=io.StringIO())) as run:
        split = SplitFacts(
            data_digest="d",
            ids_digest="i",
            n_train=1,
            classes=("a", "b"),
            mean=(0.5,),
            std=(0.5,),
            input_shape=(1, 8, 8),
        )
        teacher = TeacherFacts(
            weights=None, fingerprint="t", params=None, selection_accuracy=None, split=split
        )
        return run.search_key(split, teacher, None), preflight_key(run)


def test_a_search_is_known_by_the_content_of_the_file_that_its_students_start_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = keys(EXPERIMENT)
    text = starting_from("start.pt")
    started = keys(text)
    assert set(started).isdisjoint(fresh)
    moved = tmp_path / "moved"
    moved.mkdir()
    Path("start.pt").rename(moved / "start.pt")
    monkeypatch.chdir(moved)
    assert keys(text) == started
    Path("renamed.pt").write_bytes(Path("start.pt").read_bytes())
    assert keys(text.replace("start.pt", "renamed.pt"))[0] == started[0]
    starting_from("start.pt")
    assert set(keys(text)).isdisjoint(started)


@pytest.mark.usefixtures("_without_export")
def test_the_tracking_server_is_looked_at() -> None:
    record = only_problem(f"{EXPERIMENT}record: {{tracking_uri: 'http://127.0.0.1:9'}}\n")
    assert record.startswith("tracking: http://127.0.0.1:9 does not answer")
    assert record.endswith("start the MLflow server, or correct the tracking URI")


@pytest.mark.usefixtures("_without_export")
def test_a_cache_that_the_disk_cannot_hold_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Place, "free_bytes", lambda _: 500)
    assert "free some space" in only_problem(EXPERIMENT)


def pictures(more: str = "") -> str:
    return PICTURES.replace("MORE", more)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "pictures", per_class=8, suffix="png")


@pytest.mark.parametrize("memory", ["", ", memory_gb: 0"])
@pytest.mark.usefixtures("_without_export")
def test_unreadable_images_of_both_parts_are_counted(root: Path, memory: str) -> None:
    (root / "train" / "rose" / "broken.png").symlink_to("/not/there.png")
    for name in ("more/0.png", "1.png"):
        cut = root / "test" / "daisy" / name
        cut.write_bytes(cut.read_bytes()[:-60])
    training, test = look(pictures(memory)).problems
    assert training.startswith("1 of 17 images cannot be read: ")
    assert "train/rose/broken.png" in training
    assert test.startswith("2 of 4 images cannot be read: ")
    found = look(pictures(f"{memory}, skip_unreadable: true"))
    assert found.problems == []
    assert "data: 1 unreadable training images are left out (data.skip_unreadable)" in found.notes
    assert "data: 2 unreadable test images are left out (data.skip_unreadable)" in found.notes


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        (
            "drawn_anew",
            r"split train: called twice, it gave other samples .* of \d+ samples differ, such as \d+",
        ),
        ("augmented", "split train: called twice, .* leave augmentation to `views`"),
        ("test_in_another_order", "split test: called twice, it gave other samples"),
    ],
)
@pytest.mark.usefixtures("_without_export")
def test_a_data_set_that_differs_from_call_to_call_is_told(factory: str, says: str) -> None:
    problems = look(with_data(factory)).problems
    assert re.search(says, problems[0]), problems
    assert all("called twice" in problem for problem in problems)


@pytest.mark.usefixtures("_without_export")
def test_images_that_two_splits_share_are_counted_and_kept_for_the_summary(tmp_path: Path) -> None:
    found = look(with_data("shared_images"))
    assert found.problems == []
    assert sum(int(leak.split()[0]) for leak in found.leaks) == 3
    assert all(
        re.match(r"\d of 20 test images are in the (training|selection) split too", leak)
        for leak in found.leaks
    )
    assert {f"warning: {leak}" for leak in found.leaks} <= set(found.notes)
    assert look(EXPERIMENT).leaks == ()
    Path("task.yaml").write_text(with_data("shared_images"))
    ledger, console = Ledger(tmp_path / "out"), Console(out=io.StringIO())
    with quiet_run(load_experiment("task.yaml"), console) as quiet:
        run = Run(quiet.loaded, tmp_path / "out", ledger, Stages(ledger, console), quiet.workers, console)
        assert leaks_found(run) == ()
        preflight_stage(run)
        assert leaks_found(run) == found.leaks
        done = run.ledger.finished("preflight", preflight_key(run))
        assert done is not None
        assert done.found["data_digest"] == found.data_digest
    ledger.close()


@pytest.mark.parametrize("memory", ["", ", memory_gb: 0", ", memory_gb: 1.0e-6"])
@pytest.mark.usefixtures("_without_export")
def test_files_that_two_parts_share_are_counted_wherever_their_images_are(root: Path, memory: str) -> None:
    leaks = look(pictures(memory)).leaks  # the two test images of each class are two training images
    assert sum(int(leak.split()[0]) for leak in leaks if "of 4 test images" in leak) == 4
    (root / "train/rose/9.png").write_bytes((root / "train/rose/1.png").read_bytes())
    renamed = look(pictures(memory)).leaks
    assert sum(int(leak.split()[0]) for leak in renamed if "of 4 test images" in leak) >= 4


@pytest.mark.parametrize("change", ["no test", "a class less", "a class more"])
@pytest.mark.usefixtures("_without_export")
def test_test_folders_that_do_not_fit_are_told(root: Path, change: str) -> None:
    if change == "no test":
        (root / "test").rename(root / "proof")
        says = "test is not a folder; expected train/<class>/<image> and test/<class>/<image>"
    elif change == "a class less":
        (root / "test" / "rose").rename(root / "rose")
        says = "missing ['rose'] (1), unknown [] (0)"
    else:
        (root / "test" / "tulip").symlink_to(root / "test" / "rose")
        says = "missing [] (0), unknown ['tulip'] (1)"
    assert says in only_problem(pictures())


def staged(out: Path, said: io.StringIO, *, text: str = EXPERIMENT) -> None:
    Path("task.yaml").write_text(text)
    ledger, console = Ledger(out), Console(out=said)
    with quiet_run(load_experiment("task.yaml"), console) as quiet:
        run = Run(quiet.loaded, out, ledger, Stages(ledger, console), quiet.workers, console)
        try:
            preflight_stage(run)
        finally:
            ledger.close()


@pytest.mark.usefixtures("_without_export")
def test_what_was_looked_at_is_not_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    staged(tmp_path / "out", said)
    monkeypatch.setattr(preflight_module, "inspect_data", None)  # whoever called it would fail
    staged(tmp_path / "out", said, text=f"{EXPERIMENT}budget: {{trials: 99}}\n")
    assert said.getvalue().count("== preflight") == 1
    with pytest.raises(TypeError):
        staged(tmp_path / "out", said, text=EXPERIMENT.replace("views: 1", "views: 2"))
    with pytest.raises(TypeError):  # an objective that asks for the student's embedding
        staged(tmp_path / "out", said, text=EXPERIMENT.replace("space: kd", "space: rkd"))


@pytest.mark.usefixtures("_without_export")
def test_a_run_stops_at_its_only_problem_and_lists_several(tmp_path: Path) -> None:
    said = io.StringIO()
    with pytest.raises(ConfigError, match="two_logits': Answering returns a tuple"):
        staged(tmp_path / "one", said, text=with_student("two_logits"))
    text = with_data("test_label_of_no_class", with_student("two_logits"))
    with pytest.raises(ConfigError, match="2 problems, told above, one a line; nothing was trained"):
        staged(tmp_path / "two", said, text=text)
    assert said.getvalue().count("\nproblem: ") == 2


@pytest.mark.usefixtures("_without_export")
def test_the_command_line_lists_all_and_leaves_no_trace(tmp_path: Path) -> None:
    Path("task.yaml").write_text(with_student("two_logits"))
    done = CliRunner().invoke(app, ["validate", "task.yaml", "--deep"])
    assert done.exit_code == 2
    assert f"problem: student factory '{TASK}:two_logits': Answering returns a tuple" in done.stdout
    assert done.stdout.endswith("searched parameters)\n")
    assert "task.yaml: 1 problem, experiment task" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["task.yaml"]
