"""What an experiment needs, and would not be sent, is named before a job is started."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from orchestrator.commands import submit_experiment as command
from orchestrator.commands.submit_experiment import submit_experiment
from orchestrator.config import loading
from orchestrator.config.overrides import Overrides
from trainables.errors import ConfigError

EXPERIMENT = """\
name: task
data: {name: digits}
teacher: {model: {name: mlp}}
student: {factory: "sent_task:student"}
views: {weak: {views: 1, recipe: []}}
space: SPACE
"""


PATHS = ("stdlib", "platstdlib", "purelib", "platlib")


class Submitted(Exception):
    """Stands where the job would be sent."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    (folder / "sub").mkdir(parents=True)
    (folder / "my.yaml").write_text(EXPERIMENT.replace("SPACE", "kd"))
    (folder / "sent_task.py").write_text("import sent_layers\n")
    (folder / "sent_layers.py").write_text("")
    monkeypatch.chdir(folder)

    def refuse(*_: object, **__: object) -> None:
        raise Submitted

    monkeypatch.setattr(command, "submit_job", refuse)
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    return folder


def submit(experiment: str = "my.yaml") -> None:
    submit_experiment(experiment, Overrides(), address=None, wait=False)


def test_an_experiment_whose_files_are_all_sent_is_submitted(project: Path) -> None:
    with pytest.raises(Submitted):
        submit()
    with pytest.raises(Submitted):
        submit("digits")


@pytest.mark.parametrize("ignored", ["my.yaml", "sent_task.py", "sent_layers.py"])
def test_a_file_that_git_ignores_is_named(project: Path, ignored: str) -> None:
    (project / ".gitignore").write_text(f"{ignored}\n")
    with pytest.raises(
        ConfigError, match=rf"{ignored}: the experiment needs this, and it is not among what is"
    ):
        submit()


def test_so_is_a_space_of_ones_own(project: Path) -> None:
    (project / "my.yaml").write_text(EXPERIMENT.replace("SPACE", "own.yaml"))
    (project / "own.yaml").write_text("name: own\nobjectives: {kd: {temperature: {uniform: [1, 8]}}}\n")
    with pytest.raises(Submitted):
        submit()
    (project / ".gitignore").write_text("own.yaml\n")
    with pytest.raises(ConfigError, match=r"own\.yaml: the experiment needs this"):
        submit()


def test_code_behind_a_link_is_sent(project: Path) -> None:
    (project / "sent_layers.py").unlink()
    (project.parent / "sent_layers").mkdir()
    (project.parent / "sent_layers" / "__init__.py").write_text("")
    (project / "sent_layers").symlink_to("../sent_layers")
    with pytest.raises(Submitted):
        submit()


def test_an_experiment_outside_the_folder_that_is_sent_is_refused_but_for_shared_storage(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project / "sub")
    (project / "sub" / "a.txt").write_text("")
    with pytest.raises(ConfigError, match=r"\.\./my\.yaml lies outside .*/sub, the folder that is sent"):
        submit("../my.yaml")
    with pytest.raises(Submitted):
        submit(str(project / "my.yaml"))


def test_what_is_installed_in_an_environment_within_the_folder_is_not_asked_for(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = project / ".venv" / "lib" / "site-packages"
    installed.mkdir(parents=True)
    (installed / "sent_library.py").write_text("")
    monkeypatch.syspath_prepend(str(installed))
    (project / "my.yaml").write_text(EXPERIMENT.replace("sent_task", "sent_library").replace("SPACE", "kd"))
    with pytest.raises(ConfigError, match="the experiment needs this"):
        submit()
    monkeypatch.setattr("sysconfig.get_paths", lambda: dict.fromkeys(PATHS, str(installed)))
    with pytest.raises(Submitted):
        submit()


def test_nor_are_shipped_files_of_a_stillhouse_within_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = project / ".venv" / "shipped"
    shipped.mkdir(parents=True)
    (shipped / "mine.yaml").write_text(EXPERIMENT.replace("SPACE", "kd"))
    for module in (command, loading):
        monkeypatch.setattr(module, "EXPERIMENTS_FOLDER", shipped)
    with pytest.raises(Submitted):
        submit("mine")
