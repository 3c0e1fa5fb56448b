"""`stillhouse evaluate` on the ledger of a run that was never made, with real weights; no Ray."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from typer.testing import CliRunner, Result

from orchestrator.cli import app
from orchestrator.pipeline.evaluate_student import CleanFigures, Evaluation, show_evaluation, time_left
from orchestrator.records.events import StageEvent, TrialEnded, TrialStarted
from orchestrator.records.ledger import Ledger
from orchestrator.records.summary import Summary, write_summary
from orchestrator.terminal.console import Console
from trainables.config import (
    CeConfig,
    DataConfig,
    DataName,
    KdConfig,
    ModelConfig,
    ModelName,
    ObjectiveConfig,
    Split,
    TrainingConfig,
    TrialSpec,
    ViewsConfig,
)
from trainables.config import Role as StudentRole
from trainables.config.metrics import RankBy
from trainables.data import ImageSplit, TrainingData, load_test, load_training
from trainables.errors import CheckpointError, ConfigError, StillhouseError
from trainables.evaluation.metrics import answers, evaluate
from trainables.models import build_model
from trainables.models.weights import load_weights, save_weights
from trainables.training.workbench import Workbench

CPU = torch.device("cpu")
CHAMPION = "f1-1"
"""As the summary of the other tests has it."""
OTHER = "s2"
PRUNED = "s4"
DATA = DataConfig(name=DataName.DIGITS, train_limit=120)
TEACHER = ModelConfig(name=ModelName.MLP, width=16)
STUDENT = ModelConfig(name=ModelName.MLP, width=4)
ATTACK = ("--faithfulness", "--samples", 30, "--steps", 3, "--restarts", 2)
EXPERIMENT = """\
name: task
out: OUT/out
data: {name: digits, train_limit: 120}
teacher: {model: {name: mlp, width: 16}, checkpoint: OUT/teacher.safetensors, normalisation: data}
student: {name: mlp, width: 4}
views: {weak: {views: 1, recipe: []}}
space: kd
"""


def trained(config: ModelConfig, data: TrainingData, *, steps: int) -> nn.Module:
    torch.manual_seed(0)
    network = build_model(config, n_classes=10, in_channels=1)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
    images = (data.train.images[:].float() / 255 - data.mean[0]) / data.std[0]
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(network(images), data.train.labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return network


def add_student(
    out: Path,
    trial: str,
    checkpoint: Path | None,
    *,
    status: str = "completed",
    rank_by: RankBy = RankBy.ACCURACY,
    objective: ObjectiveConfig = CeConfig(),  # noqa: B008 # frozen
) -> None:
    spec = TrialSpec(
        trial_id=trial,
        role=StudentRole.FINALIST,
        objective=objective,
        student=STUDENT,
        training=TrainingConfig(epochs=1),
        seed=1,
        rank_by=rank_by,
    )
    ledger = Ledger(out)
    ledger.append(
        TrialStarted(
            trial=trial,
            role="finalist",
            search="s",
            objective=objective.name,
            parameters={},
            spec=spec.plain(),
        )
    )
    ledger.append(
        TrialEnded(
            trial=trial,
            status=status,
            reason=None,
            epochs=1,
            best_epoch=1,
            best={"selection/accuracy": 0.5},
            final={"selection/accuracy": 0.5},
            checkpoint=None if checkpoint is None else str(checkpoint),
        )
    )
    ledger.close()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights of a teacher and of two students."""
    folder, data = tmp_path_factory.mktemp("weights"), load_training(DATA)
    for name, config, steps in (("teacher", TEACHER, 40), (CHAMPION, STUDENT, 25), (OTHER, STUDENT, 8)):
        save_weights(trained(config, data, steps=steps), folder / f"{name}.safetensors", {})
    return folder


@pytest.fixture
def file(tmp_path: Path, weights: Path, summary: Summary) -> str:
    """An experiment whose run is over: two students with weights, one the champion, and one without."""
    path = tmp_path / "task.yaml"
    path.write_text(EXPERIMENT.replace("OUT", str(tmp_path)))
    shutil.copy(weights / "teacher.safetensors", tmp_path)
    out = tmp_path / "out"
    for trial in (CHAMPION, OTHER):
        checkpoint = out / "students" / trial / "best.safetensors"
        checkpoint.parent.mkdir(parents=True)
        shutil.copy(weights / f"{trial}.safetensors", checkpoint)
        add_student(out, trial, checkpoint)
    add_student(out, PRUNED, None, status="pruned")
    write_summary(out / "summary.json", summary)
    return str(path)


def asked(*words: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, words)])


def told(*words: object) -> dict[str, Any]:
    """The JSON of a command that is expected to succeed."""
    done = asked(*words, "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def refused(kind: type[StillhouseError], *words: object) -> str:
    done = asked(*words)
    assert isinstance(done.exception, kind), (done.output, done.exception)
    return str(done.exception)


def rewrite(file: str, old: str, new: str) -> None:
    text = Path(file).read_text()
    assert old in text
    Path(file).write_text(text.replace(old, new))


def network(file: str, config: ModelConfig, weights: str) -> nn.Module:
    model = build_model(config, n_classes=10, in_channels=1)
    load_weights(model, Path(file).parent / weights)
    return model


def figures(model: nn.Module, split: ImageSplit, data: TrainingData) -> dict[str, float]:
    return evaluate(model, split, mean=data.mean, std=data.std, batch_size=512, device=CPU)


@pytest.mark.parametrize(("words", "trial"), [((), CHAMPION), (("--trial", OTHER), OTHER)])
def test_figures_are_those_of_the_kept_weights_and_agreement_is_with_the_teacher(
    file: str, words: tuple[str, ...], trial: str
) -> None:
    found, data = told(file, *words), load_training(DATA)
    student = network(file, STUDENT, f"out/students/{trial}/best.safetensors")
    teacher = network(file, TEACHER, "teacher.safetensors")
    assert (found["trial"], found["objective"], found["split"]) == (trial, "ce", "selection")
    assert found["images"] == len(data.selection.labels)
    assert found["student"] == pytest.approx(figures(student, data.selection, data))
    assert found["teacher"] == pytest.approx(figures(teacher, data.selection, data))
    classes = [
        answers(model, data.selection, mean=data.mean, std=data.std, batch_size=64, device=CPU)
        for model in (student, teacher)
    ]
    assert found["agreement"] == pytest.approx(float((classes[0] == classes[1]).double().mean()))
    assert 0.2 < found["agreement"] < 1
    assert found["faithfulness"] is None


@pytest.mark.parametrize("by", [RankBy.KNN_ACCURACY, RankBy.PROBE_ACCURACY])
def test_a_student_that_features_ranked_is_shown_by_them_too(file: str, by: RankBy) -> None:
    out = Path(file).parent / "out"
    checkpoint = out / "students" / OTHER / "best.safetensors"
    add_student(out, "r1", checkpoint, rank_by=by)
    found, data = told(file, "--trial", "r1"), load_training(DATA)
    assert found["rank_by"] == by
    workbench = Workbench(data, ViewsConfig(), view_seed=0, device=CPU)
    for who, model in (
        ("student", network(file, STUDENT, f"out/students/{OTHER}/best.safetensors")),
        ("teacher", network(file, TEACHER, "teacher.safetensors")),
    ):
        expected = workbench.features_worth(model, by, data.selection, batch_size=512)
        assert {by.value: found[who]["ranked"]} == expected
    shown = asked(file, "--trial", "r1").output
    assert f"{by.label}, %" in shown
    usual = told(file, "--trial", OTHER)
    assert "rank_by" not in usual
    assert "ranked" not in usual["student"]


def test_faithfulness_adds_a_row_for_each_radius_and_the_images_themselves(file: str) -> None:
    around = told(file, *ATTACK, "--epsilon", 8, "--epsilon", 2)["faithfulness"]
    assert around["search"]["confidence_of"] == "label"
    assert around["samples_drawn"] == 30
    assert 10 < around["samples"] <= 30
    assert [ball["epsilon"] for ball in around["balls"]] == [0, 2, 8]
    gaps = [ball["confidence_gap_at_least"] for ball in around["balls"]]
    assert 0 < gaps[0] < gaps[1] < gaps[2]
    assert told(file, *ATTACK, "--epsilon", 8, "--epsilon", 2)["faithfulness"] == around
    own = told(file, *ATTACK, "--epsilon", 2, "--confidence-of", "teacher")["faithfulness"]
    assert own["search"]["confidence_of"] == "teacher"
    assert own["balls"][0] == around["balls"][0]


def test_people_are_told_that_figures_of_attacks_are_bounds(file: str) -> None:
    shown = asked(file, *ATTACK, "--epsilon", 4)
    assert shown.exit_code == 0, shown.exception
    lines = shown.stdout.splitlines()
    rows = [line.split() for line in lines if line.split()[:1] in (["0"], ["4"])]
    assert [row.count(">=") for row in rows] == [0, 2]
    assert "disagreement and gap are lower bounds" in lines[-1]
    assert "nothing here is a guarantee" in lines[-1]
    assert "attacks: 2/2, 0 s left" in lines
    assert any("those of 30 that the teacher gets right" in line for line in lines)


def test_the_result_is_written_for_programs(file: str, tmp_path: Path) -> None:
    path = tmp_path / "found" / "evaluation.json"
    found = told(file, "--to", path)
    assert json.loads(path.read_text()) == found


def test_looking_alters_nothing_of_the_run(file: str) -> None:
    ledger = Path(file).parent / "out" / "ledger.jsonl"
    before = ledger.read_bytes()
    told(file)
    assert ledger.read_bytes() == before


def test_the_test_split_is_shown_to_students_that_a_run_has_tested_and_to_no_others(file: str) -> None:
    message = refused(ConfigError, file, "--split", "test")
    assert f"no run has tested student {CHAMPION}" in message
    assert "leave out --split test" in message
    ledger = Ledger(Path(file).parent / "out")
    result = {CHAMPION: {"accuracy": 0.5}}
    ledger.append(StageEvent(stage="test", key="k", status="finished", seconds=1.0, result=result))
    ledger.close()
    found, data = told(file, "--split", "test"), load_training(DATA)
    student = network(file, STUDENT, f"out/students/{CHAMPION}/best.safetensors")
    assert found["split"] == "test"
    assert found["student"] == pytest.approx(figures(student, load_test(DATA), data))
    assert "no run has tested student s2" in refused(ConfigError, file, "--split", "test", "--trial", OTHER)


def test_a_teacher_of_which_only_logits_are_known_is_neither_attacked_nor_compared_with(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # the node's copies of caches lie there
    weights = f"checkpoint: {tmp_path}/teacher.safetensors, normalisation: data"
    teacher = f"{{model: {{name: mlp, width: 16}}, {weights}}}"
    rewrite(file, teacher, "{imported: true}")
    train = load_training(DATA).train
    logits = 5 * F.one_hot(train.labels, 10).float()
    np.savez(tmp_path / "logits.npz", ids=train.ids.numpy(), logits=logits.numpy())
    brought = CliRunner().invoke(app, ["cache", "import", str(tmp_path / "logits.npz"), file])
    assert brought.exit_code == 0, (brought.output, brought.exception)
    found = told(file)
    assert (found["teacher"], found["agreement"]) == (None, None)
    assert found["student"]["accuracy"] > 0.2
    assert "unknown" in asked(file).output
    message = refused(ConfigError, file, "--faithfulness")
    assert "has no network, only logits that were imported" in message
    assert "give the experiment the teacher's `model` and `checkpoint`" in message


def test_a_student_that_there_is_not_is_refused_with_the_nearest(file: str) -> None:
    message = refused(ConfigError, file, "--trial", "f1-2")
    assert "knows no student 'f1-2'; 2 have weights, such as f1-1, s2; did you mean 'f1-1'?" in message


def test_a_student_without_weights_is_refused(file: str) -> None:
    assert f"student {PRUNED} has no weights to evaluate, since it is pruned" in refused(
        ConfigError, file, "--trial", PRUNED
    )
    weights = Path(file).parent / "out" / "students" / OTHER / "best.safetensors"
    weights.unlink()
    assert f"are gone from {weights}" in refused(CheckpointError, file, "--trial", OTHER)


def test_a_run_that_is_not_finished_has_no_champion_and_one_that_never_began_no_student(file: str) -> None:
    (Path(file).parent / "out" / "summary.json").unlink()
    assert "has no champion; name a student with --trial" in refused(ConfigError, file)
    assert told(file, "--trial", OTHER)["trial"] == OTHER
    nowhere = Path(file).parent / "elsewhere"
    assert "holds no run of task; run it first" in refused(ConfigError, file, "--out", nowhere)
    assert not nowhere.exists()


def test_a_teacher_that_was_never_made_is_named_where_the_student_learned_from_one(
    file: str, tmp_path: Path
) -> None:
    rewrite(file, f", checkpoint: {tmp_path}/teacher.safetensors, normalisation: data", "")
    checkpoint = tmp_path / "out" / "students" / OTHER / "best.safetensors"
    add_student(tmp_path / "out", "kd-1", checkpoint, objective=KdConfig())
    assert "has no teacher of this" in refused(ConfigError, file, "--trial", "kd-1")
    assert "has no teacher of this" in refused(ConfigError, file, *ATTACK)
    assert told(file)["teacher"] is None  # of cross-entropy


def test_a_student_without_a_teacher_is_evaluated_alone(file: str, tmp_path: Path) -> None:
    compared = told(file)
    line = next(line for line in Path(file).read_text().splitlines() if line.startswith("teacher:"))
    rewrite(file, line + "\n", "")
    rewrite(file, "space: kd", "space: ce")
    found = told(file)
    assert (found["teacher"], found["teacher_fingerprint"], found["agreement"]) == (None, None, None)
    assert found["student"] == compared["student"]
    shown = asked(file).output
    assert f"student {CHAMPION} learned from no teacher, and none is here: it is evaluated alone" in shown
    assert "task has no teacher, and --faithfulness attacks" in refused(ConfigError, file, *ATTACK)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epsilon", "4"], "--epsilon: of attacks, which --faithfulness asks for"),
        (
            ["--restarts", "2", "--confidence-of", "label"],
            "--restarts, --confidence-of: of attacks, which --faithfulness asks for",
        ),
        (["--faithfulness", "--epsilon", "nan"], "--epsilon nan: Input should be"),
        (
            ["--faithfulness", "--epsilon", "256"],
            "--epsilon 256.0: Input should be less than or equal to 255",
        ),
        (["--faithfulness", "--epsilon", "0"], "--epsilon 0.0: Input should be greater than 0"),
    ],
)
def test_options_that_say_nothing_or_too_much_are_refused(words: list[str], message: str) -> None:
    assert message in refused(ConfigError, "digits", *words)


def test_help_shows_an_example_and_the_rule_of_the_test_split() -> None:
    done = asked("--help")
    assert done.exit_code == 0
    assert "Example: stillhouse evaluate digits --faithfulness" in done.output
    words = " ".join(done.output.replace("│", " ").split())
    assert "so that nobody chooses a student by it" in words
    assert "none of it is a guarantee" in words


def test_an_experiments_pair_may_be_chosen() -> None:
    assert "digits.yaml has no pair 'large-small'" in refused(ConfigError, "digits", "--pair", "large-small")


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ([100.0], "time left not known yet"),
        ([100.0, 103.0], "24 s left"),
        ([100.0, 102.0, 104.0, 106.0], "12 s left"),
    ],
)
def test_the_time_left_is_that_of_what_was_measured_behind_the_first_piece(
    times: list[float], said: str
) -> None:
    assert time_left(times, 10) == said


def test_where_classes_are_uneven_the_balanced_accuracy_stands_beside_the_accuracy() -> None:
    even = CleanFigures(accuracy=0.9, nll=0.4, ece=0.1)
    assert even.plain() == {"accuracy": 0.9, "nll": 0.4, "ece": 0.1}
    out = io.StringIO()
    found = Evaluation(
        experiment="e", trial="t", objective="kd", weights="w", split=Split.SELECTION, images=9,
        student=even.with_overrides(balanced_accuracy=0.5), teacher=even, teacher_fingerprint="f" * 64,
        agreement=0.8, faithfulness=None,
    )  # fmt: skip
    show_evaluation(found, Console(out=out))
    lines = out.getvalue().splitlines()
    assert "90.00 (balanced 50.00)" in lines[2]
    assert "balanced" not in lines[3]
