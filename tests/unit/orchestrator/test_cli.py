"""The command line: instant, one line for an error, and files to start from."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator import __version__
from orchestrator.cli import app, main
from orchestrator.config.loading import (
    EXPERIMENTS_FOLDER,
    SPACES_FOLDER,
    load_experiment,
    load_space,
    shipped,
)
from trainables.errors import ConfigError

SLOW = ("torch", "ray", "mlflow", "pandas", "numpy")
COMMANDS = (
    "run", "pick", "ui", "submit", "doctor", "validate", "init", "schema", "experiments", "spaces",
    "objectives", "watch", "compare",
)  # fmt: skip


def test_errors_have_a_line_each_with_exit_code_2_and_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ndata: {name: digit}\n")
    done = _stillhouse("validate", str(path))
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) > 1
    assert all(line.startswith(f"error: {path}:") for line in lines)


def test_a_file_that_ends_too_early_is_not_taken_for_the_end_of_input(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Typer says only "Aborted!" to both; we ask no questions, so there is no input that could end."""

    def read(*_: object, **__: object) -> None:
        raise EOFError("Ran out of input")

    monkeypatch.setattr("orchestrator.cli.load_experiment", read)
    monkeypatch.setattr("orchestrator.cli.mask_process", lambda: None)  # the test's own streams stay
    monkeypatch.setattr(sys, "argv", ["stillhouse", "validate", "digits"])
    with pytest.raises(EOFError, match="Ran out of input"):
        main()


@pytest.mark.parametrize(
    ("said", "status", "told"), [("no licence", 1, "error: no licence\n"), (None, 0, ""), (3, 3, "")]
)
def test_a_library_that_ends_the_process_is_heard(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    said: str | int | None,
    status: int,
    told: str,
) -> None:
    def end(*_: object, **__: object) -> None:
        sys.exit(said)

    monkeypatch.setattr("orchestrator.cli.load_experiment", end)
    monkeypatch.setattr("orchestrator.cli.mask_process", lambda: None)  # the test's own streams stay
    monkeypatch.setattr(sys, "argv", ["stillhouse", "validate", "digits"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert (caught.value.code, capsys.readouterr().err) == (status, told)


def test_validating_imports_no_library_that_is_slow() -> None:
    code = (
        "import sys\nfrom orchestrator.cli import app\n"
        "app(['validate', 'digits'], standalone_mode=False)\n"
        f"print([name for name in {SLOW} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_wrong_experiment_stops_a_run_before_anything_is_imported() -> None:
    code = (
        "import sys\nimport orchestrator.cli\nsys.argv = ['stillhouse', 'run', 'digit']\n"
        "try:\n    orchestrator.cli.main()\n"
        f"finally:\n    print([name for name in {SLOW} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "[]\n")
    assert done.stderr.startswith("error: no shipped experiment 'digit'; allowed: cifar100, digits")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_shows_an_example(command: str) -> None:
    done = CliRunner().invoke(app, [command, "--help"])
    assert done.exit_code == 0
    assert f"Example: stillhouse {command}" in done.output


@pytest.mark.parametrize("words", [["run"], ["run", "digits", "--trials", "0"], ["schema", "model"], ["rn"]])
def test_wrong_usage_ends_with_exit_code_2(words: list[str]) -> None:
    assert CliRunner().invoke(app, words).exit_code == 2


def test_the_version_is_told() -> None:
    assert CliRunner().invoke(app, ["--version"]).output == f"stillhouse {__version__}\n"


@pytest.mark.parametrize("name", list(shipped(EXPERIMENTS_FOLDER)))
def test_a_file_to_start_from_is_valid_and_named_after_itself(name: str, tmp_path: Path) -> None:
    path = tmp_path / "my first.yaml"
    done = CliRunner().invoke(app, ["init", str(path), "--from", name])
    assert done.exit_code == 0, done.output
    loaded = load_experiment(str(path), check_paths=False)
    assert loaded.config.name == "my-first"
    shipped_one = load_experiment(name, check_paths=False).config
    assert loaded.config == shipped_one.with_overrides(name="my-first")
    assert path.read_text().count("#") == (EXPERIMENTS_FOLDER / f"{name}.yaml").read_text().count("#")


def test_a_file_to_start_from_may_choose_a_pair(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    words = ["init", str(path), "--from", "cifar100", "--pair", "resnet56-resnet20"]
    assert CliRunner().invoke(app, words).exit_code == 0
    config = load_experiment(str(path), check_paths=False).config
    assert config == load_experiment("cifar100:resnet56-resnet20", check_paths=False).config.with_overrides(
        name="mine-resnet56-resnet20"
    )


def test_a_pair_that_there_is_not_writes_no_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    words = ["init", str(path), "--from", "cifar100", "--pair", "resnet56-resnet22"]
    wanted = r"cifar100\.yaml has no pair 'resnet56-resnet22'; allowed: wrn_40.* mean 'resnet56-resnet20'\?$"
    with pytest.raises(ConfigError, match=wanted):
        CliRunner().invoke(app, words, catch_exceptions=False)
    assert not path.exists()
    done = CliRunner().invoke(app, ["init", str(path), "--from-space", "kd", "--pair", "a-b"])
    assert "a search space has no pairs" in str(done.exception)


@pytest.mark.parametrize(
    "words",
    [
        *(["run", "digits"], ["pick", "digits"], ["submit", "digits"], ["ui", "digits"], ["ui"]),
        *(["watch", "digits"], ["show", "digits"]),
        *(["cache", "plan", "digits"], ["cache", "verify", "digits"], ["cache", "info", "digits"]),
        *(["cache", "show", "digits", "--sample", "1"], ["cache", "export", "digits", "a.csv"]),
    ],
    ids=" ".join,
)
def test_every_command_about_an_experiment_takes_one_of_its_pairs(words: list[str]) -> None:
    """And all pass it on: that digits has none is found out before anything begins."""
    done = CliRunner().invoke(app, [*words, "--pair", "large-small"])
    assert isinstance(done.exception, ConfigError), done.output
    assert "digits.yaml has no pair 'large-small'" in str(done.exception)


def test_the_pairs_of_a_file_are_told_when_it_is_checked() -> None:
    done = CliRunner().invoke(app, ["validate", "cifar100", "--no-paths"])
    assert done.output.endswith(", resnet32x4-shufflenetv2, wrn_40_2-shufflenetv1\n")
    assert "; pairs: wrn_40_2-wrn_16_2, " in done.output


def test_a_search_space_to_start_from_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "wide.yaml"
    assert CliRunner().invoke(app, ["init", str(path), "--from-space", "crld"]).exit_code == 0
    assert load_space(str(path)) == load_space("crld").with_overrides(name="wide")
    done = CliRunner().invoke(app, ["validate", str(path)])
    assert done.output == f"{path}: ok, space wide (objective crld; 6 searched parameters)\n"


def test_a_file_that_exists_is_kept_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("precious")
    done = _stillhouse("init", str(path))
    assert (done.returncode, path.read_text()) == (2, "precious")
    assert done.stderr == f"error: {path} exists; give another name, or --force to replace it\n"
    assert CliRunner().invoke(app, ["init", str(path), "--force"]).exit_code == 0
    assert load_experiment(str(path)).config.name == "mine"


def test_what_validate_prints_for_programs_is_the_whole_configuration() -> None:
    done = CliRunner().invoke(app, ["validate", "digits", "--json"])
    printed = json.loads(done.output)
    loaded = load_experiment("digits")
    assert printed == {"experiment": loaded.config.plain(), "space": loaded.space.plain()}


@pytest.mark.parametrize(("kind", "key"), [("experiment", "student"), ("space", "objectives")])
def test_a_schema_is_json_with_the_keys_of_the_file(kind: str, key: str) -> None:
    schema = json.loads(CliRunner().invoke(app, ["schema", kind]).output)
    assert schema["additionalProperties"] is False
    assert key in schema["properties"]
    assert key in schema["required"]


@pytest.mark.parametrize(
    ("command", "folder"), [("experiments", EXPERIMENTS_FOLDER), ("spaces", SPACES_FOLDER)]
)
def test_shipped_files_are_listed_with_what_they_are(command: str, folder: Path) -> None:
    done = CliRunner().invoke(app, [command, "--json"])
    assert json.loads(done.stdout) == shipped(folder)
    assert all(len(text) > 20 for text in shipped(folder).values())


def _stillhouse(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "orchestrator", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["validate", "digit"], 2, "no shipped experiment 'digit'"),
        (["run", "digits", "--trials", "0"], 2, "cannot be used as written"),
        (["pick", "digits", "--where", "parms <= 1"], 2, "--where: "),
        (["cache", "info", "digits", "--out", "nowhere"], 2, "run it first"),
    ],
)
def test_with_json_an_error_is_json_too(words: list[str], code: int, told: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "orchestrator", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    document = json.loads(done.stdout)
    assert (done.returncode, document["exit_code"]) == (code, code)
    assert any(told in error for error in document["errors"])
    assert "rror: " in done.stderr


def test_validate_tells_every_problem_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    shipped_one = (EXPERIMENTS_FOLDER / "digits.yaml").read_text()
    path.write_text(shipped_one.replace("seed: 0", "seed: x").replace("trials: 24", "trials: 0"))
    command = [sys.executable, "-m", "orchestrator", "validate", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    assert [re.sub(r":\d+: ", ":N: ", line).split(": found")[0] for line in lines] == [
        f"error: {path}:N: seed",
        f"error: {path}:N: budget.trials",
    ]
