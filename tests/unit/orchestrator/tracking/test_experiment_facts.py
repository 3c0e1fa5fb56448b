"""What the parent run is told before anything is trained: files without secrets, code, hardware."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from orchestrator.config.loading import load_experiment
from orchestrator.terminal.masking import file_without_secrets
from orchestrator.tracking.experiment_facts import code_version, experiment_facts


def git(folder: Path, *words: str) -> None:
    named = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run(["git", "-C", str(folder), *named, *words], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return tmp_path


def test_the_code_is_told_by_commit_and_whether_files_were_changed(repository: Path) -> None:
    clean = code_version(repository)
    assert len(clean["mlflow.source.git.commit"]) == 40
    assert clean["code.dirty"] == "no"
    (repository / "mine.yaml").write_text("name: other\n")
    assert code_version(repository) == {**clean, "code.dirty": "yes"}


def test_a_folder_in_no_repository_tells_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert code_version(tmp_path) == {}
    monkeypatch.setenv("PATH", "")
    assert code_version(tmp_path) == {}


def test_the_parent_keeps_both_files_and_names_the_hardware() -> None:
    loaded = load_experiment("digits", check_paths=False)
    facts = experiment_facts(loaded)
    assert facts.files["experiment.yaml"] == loaded.source.read_text()
    assert facts.files["space.yaml"] == loaded.space_source.read_text()
    assert facts.tags["hardware.cpu"]
    assert int(facts.tags["hardware.cores"]) >= 1
    assert facts.tags["hardware.memory"].endswith(" GiB")


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("token: abc", "token: ***"),
        ("  api_key: 12ab  # mine", "  api_key: ***# mine"),
        ("{token: abc, x: 1}", "{token: ***, x: 1}"),
        ('password: "p w"', "password: ***"),
        ("tracking_uri: https://me:pw@host/x", "tracking_uri: https://host/x"),
        ("token_weight: 0.5", "token_weight: 0.5"),
        ("token_weight: {loguniform: [0.1, 10]}", "token_weight: {loguniform: [0.1, 10]}"),
        ("token_weight: [0.5, 1]", "token_weight: [0.5, 1]"),
        ("level: tokens", "level: tokens"),
    ],
)
def test_texts_under_secret_keys_are_left_out_of_a_file_and_numbers_stay(line: str, kept: str) -> None:
    assert file_without_secrets(f"a: 1\n{line}\nb: 2\n") == f"a: 1\n{kept}\nb: 2\n"
