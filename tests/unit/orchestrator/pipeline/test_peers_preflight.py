"""Networks that teach each other, or one itself: what a trial could not make of them is told before any."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.config.loading import load_experiment
from orchestrator.pipeline import preflight_networks
from orchestrator.pipeline.context import quiet_run
from orchestrator.pipeline.preflight import preflight, preflight_key
from orchestrator.pipeline.preflight_networks import NetworkChecks
from orchestrator.terminal.console import Console
from trainables.config import ObjectiveBase
from trainables.data import TrainingData
from trainables.training.course import Trained
from trainables.training.learners.peers import require_objective

TASK = "tests.unit.orchestrator.pipeline.preflight_task"
EXPERIMENT = f"""\
name: task
data: {{factory: "{TASK}:dataset"}}
student: STUDENT
views: {{weak: {{views: 1, recipe: []}}}}
space: space.yaml
"""
CONVNET = "{name: convnet, width: 4}"
LAYERS = "mcl: {layers: true, peers: {choice: [2]}}"
SEARCH = "search: {points_to_evaluate: []}\n"
LISTS = "peers: {flat: [{name: convnet}, {name: mlp}], deep: [{name: convnet, width: 4}]}\n"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(NetworkChecks, "export", lambda *_: None)


def of_task(factory: str) -> str:
    return f'{{factory: "{TASK}:{factory}"}}'


def looked(objectives: str, student: str = CONVNET, more: str = "") -> tuple[list[str], str]:
    """The problems, and the key under which they are remembered."""
    Path("space.yaml").write_text(f"name: s\nobjectives: {{{objectives}}}\n{SEARCH}")
    Path("task.yaml").write_text(EXPERIMENT.replace("STUDENT", student) + more)
    with quiet_run(load_experiment("task.yaml"), Console(out=io.StringIO())) as run:
        return preflight(run).problems, preflight_key(run)


def test_batches_with_few_images_of_a_class_are_warned_of_once_for_what_they_are() -> None:
    """Of four classes an image of four is alone at 0.75^3 = 42 %."""
    told, key = noted("training: {batch_size: 4}\n")
    assert "compares the images of a class in a batch, and of the 4 that" in told
    assert "about 42 %" in told
    silent, other_key = noted("training: {batch_size: 4, sampling: pairs}\n")
    assert "images of a class" not in silent
    assert len({key, other_key, noted("training: {batch_size: 8}\n")[1]}) == 3


def noted(more: str) -> tuple[str, str]:
    """All that is said of mcl with this recipe, and the key under which that is remembered."""
    Path("space.yaml").write_text("name: s\nobjectives: {mcl: {peers: {choice: [2, 3]}}}\n")
    Path("task.yaml").write_text(EXPERIMENT.replace("STUDENT", CONVNET) + more)
    with quiet_run(load_experiment("task.yaml"), Console(out=io.StringIO())) as run:
        return " ".join(preflight(run).notes), preflight_key(run)


def only_problem(objectives: str, student: str = CONVNET, more: str = "") -> str:
    (problem,) = looked(objectives, student, more)[0]
    return problem


def test_a_peer_without_what_an_objective_compares_is_told_with_its_number_and_list() -> None:
    problem = only_problem("mfef: {peers: {choice: [2, flat, deep]}}", more=LISTS)
    assert problem.startswith("peer 2 of flat mlp: objective mfef of space s: Mlp has no feature 'last'")
    assert re.search(
        r"without a teacher that ask for the embedding alone: mcl; for logits alone: .*ls, .*dml", problem
    )
    assert "rkd" not in problem
    unnamed = only_problem("mfef: {}, ls: {}", more="peers: [{name: mlp}]\n")
    assert unnamed.startswith("peer 1 mlp: objective mfef of space s: Mlp has no feature 'last'")


def test_a_peer_is_asked_for_what_the_objectives_compare_that_may_train_it() -> None:
    spaces = [
        f"dml: {{peers: {{choice: [{one}]}}}}, mfef: {{peers: {{choice: [{other}]}}}}"
        for one, other in (("flat", "deep"), ("deep", "flat"))
    ]
    (none, key), (one, other_key) = (looked(space, more=LISTS) for space in spaces)
    assert none == []
    assert [problem.partition(":")[0] for problem in one] == ["peer 2 of flat mlp"]
    assert key != other_key


@pytest.mark.parametrize(
    ("objective", "without"),
    [("mixskd: {}, ls: {}", "zipf: {}, ls: {}"), (LAYERS, LAYERS.replace("layers: true, ", ""))],
    ids=["mixskd", "mcl"],
)
@pytest.mark.parametrize(
    ("factory", "says"),
    [
        ("skipping", "Skipping: what follows stage1 cannot be a network of its own: "),
        ("deciding", "Deciding: its forward pass cannot be followed "),
    ],
)
def test_a_student_of_which_no_branch_can_be_made_is_named(
    objective: str, without: str, factory: str, says: str
) -> None:
    problem = only_problem(objective, of_task(factory))
    name = objective.partition(":")[0]
    assert problem.startswith(f"student factory '{TASK}:{factory}': objective {name} of space s: {says}")
    assert looked(objective, of_task("staged"))[0] == []
    assert looked(without, of_task(factory))[0] == []


def test_branches_want_two_stages() -> None:
    problem = only_problem(LAYERS, of_task("one_stage"))
    assert "objective mcl of space s: the student has 1 stages, and branches stand at the stages" in problem
    assert looked("mixskd: {}, ls: {}", of_task("one_stage"))[0] == []


def test_a_peer_of_which_no_branch_can_be_made_is_named_with_its_student() -> None:
    lists = f"peers: {{odd: [{CONVNET}, {of_task('skipping')}]}}\n"
    problem = only_problem("mcl: {layers: true, peers: {choice: [2, odd]}}", more=lists)
    assert problem.startswith(
        "student convnet with its peers odd: objective mcl of space s: peer 2: Skipping"
    )


def test_a_student_is_cut_where_a_trial_cuts_it() -> None:
    """Beside a network of two stages the earlier ones of a student with three get no branch."""
    student, beside = of_task("skips_to_its_second"), f"peers: {{two: [{of_task('staged')}]}}\n"
    assert "what follows stage1 cannot be" in only_problem(LAYERS, student)
    assert looked("mcl: {layers: true, peers: {choice: [two]}}", student, beside)[0] == []


def test_copies_of_a_student_are_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[str, int]] = []

    def counting(config: ObjectiveBase, networks: Sequence[Trained], data: TrainingData) -> None:
        tried.append((str(config.plain()["name"]), len(networks)))
        require_objective(config, networks, data)

    monkeypatch.setattr(preflight_networks, "require_objective", counting)
    assert looked("mcl: {peers: {choice: [2, 3, 16]}}, dml: {}, mixskd: {}")[0] == []
    assert tried == [("mcl", 2), ("mixskd", 1)]
