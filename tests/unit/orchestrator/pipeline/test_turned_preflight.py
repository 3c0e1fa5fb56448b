"""Images that are not square, in experiments that turn them: told before anything is trained."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from orchestrator.config.loading import load_experiment
from orchestrator.pipeline.context import quiet_run
from orchestrator.pipeline.preflight import preflight, preflight_key
from orchestrator.pipeline.preflight_networks import NetworkChecks
from orchestrator.terminal.console import Console

TASK = "tests.unit.orchestrator.pipeline.preflight_task"
EXPERIMENT = f"""\
name: task
data: {{factory: "{TASK}:wide"}}
teacher: {{model: {{name: convnet, width: 4}}}}
student: {{name: convnet, width: 4}}
views: {{weak: {{views: 1, recipe: []}}}}
space: space.yaml
"""
TURNS = "[{op: crop_flip}, {op: rotation}]"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(NetworkChecks, "export", lambda *_: None)


def looked(objectives: str, experiment: str = EXPERIMENT) -> tuple[list[str], str]:
    """The problems, and the key under which they are remembered."""
    Path("space.yaml").write_text(f"name: s\nobjectives: {{{objectives}}}\n")
    Path("task.yaml").write_text(experiment)
    with quiet_run(load_experiment("task.yaml"), Console(out=io.StringIO())) as run:
        return preflight(run).problems, preflight_key(run)


@pytest.mark.parametrize(
    ("objectives", "turned"),
    [
        ("kd: {}, mlkd: {}", "objective mlkd of space s (banks weak90, weak180, weak270)"),
        (
            "kd: {}, sskd: {}",
            "objective sskd of space s (banks weak90, weak180, weak270 and a teacher prepared with ss_head)",
        ),
    ],
)
def test_an_objective_of_turned_images_is_named(objectives: str, turned: str) -> None:
    (problem,), _ = looked(objectives)
    assert problem == (
        "quarter turns need square images, and these have 8 x 12 pixels; what turns them: "
        f"{turned}; set data.image_size, or leave these out"
    )


@pytest.mark.parametrize("step", ["{op: rotation}", "{op: rotation, by: random}", "{op: quarter_turn}"])
def test_a_step_that_turns_is_named_in_a_recipe_that_somebody_sees(step: str) -> None:
    recipe = f"recipe: [{{op: crop_flip}}, {step}]"
    (problem,), _ = looked("kd: {}, ce: {}", EXPERIMENT.replace("recipe: []", recipe))
    assert f"what turns them: views.weak.recipe[1] ({step[5:].partition(',')[0].strip('}')})" in problem
    strong = EXPERIMENT.replace("recipe: []}", f"recipe: []}}, strong: {{views: 1, {recipe}}}")
    (problem,), _ = looked("kd: {}, crld: {}", strong)
    assert "what turns them: views.strong.recipe[1]" in problem
    assert looked("kd: {}, ce: {}", strong)[0] == []


def test_a_teacher_that_is_trained_with_branches_of_turned_images_is_named() -> None:
    joint = EXPERIMENT.replace("width: 4}}", "width: 4}, prepared: joint_branches}", 1)
    (problem,), _ = looked("kd: {}, ce: {}", joint)
    assert "what turns them: teacher.prepared (joint_branches); " in problem


def test_square_images_may_be_turned_and_others_stay_as_they_are() -> None:
    square = EXPERIMENT.replace(':wide"', ':wide", image_size: 8')
    assert looked("kd: {}, mlkd: {}", square)[0] == []
    assert looked("kd: {}, ce: {}")[0] == []


def test_what_was_looked_at_is_looked_at_again_once_something_else_turns_images() -> None:
    # Both hear the teacher on the same banks, and ask for the student's embedding.
    assert looked("kd: {}, mlkd: {}")[1] != looked("kd: {}, sskd: {}")[1]
