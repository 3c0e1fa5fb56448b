from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Literal

import pytest
from typer.testing import CliRunner

from orchestrator import cli
from orchestrator.commands import record
from orchestrator.commands.completion import command_line
from orchestrator.config.overrides import Overrides
from trainables.errors import ConfigError


@pytest.mark.parametrize(
    ("command", "overrides"),
    [
        ("run", Overrides()),
        ("run", Overrides("my spaces/kd.yaml", Path("out/a b"), 7, finalists=3)),
        ("pick", Overrides("crld", Path("/elsewhere"), 7, "latency_ms <= 2 and params <= 1e6")),
        ("record", Overrides("kd", Path("out"), 7, "params <= 1e6", 3)),
    ],
)
def test_the_command_that_goes_on_is_the_command_that_was_given(
    command: Literal["run", "pick", "record"], overrides: Overrides, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[Any, ...]] = []
    for module in (cli, record):
        monkeypatch.setattr(module, "complete", lambda *given, json_only: called.append((*given, json_only)))
    words = shlex.split(command_line(command, "my.yaml:small", overrides))
    assert words[0] == "stillhouse"
    done = CliRunner().invoke(cli.app, words[1:])
    assert done.exit_code == 0, done.output
    assert called == [(command, "my.yaml:small", overrides, False)]


def test_a_pair_goes_on_with_its_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(cli, "complete", lambda _, experiment, *__, **___: called.append(experiment))
    done = CliRunner().invoke(cli.app, ["run", "cifar100", "--pair", "vgg13-vgg8", "--json"])
    assert done.exit_code == 0, done.output
    assert called == ["cifar100:vgg13-vgg8"]


def test_nothing_is_picked_or_made_where_no_search_was_finished(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(cli.app, ["pick", "digits", "--out", str(out)])
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception) == (
        f"there is nothing to pick: experiment digits has no finished search in {out}; run it first, with "
        "the same options"
    )
    assert not out.exists()


def test_an_accuracy_of_90_is_refused_when_the_option_is_read(tmp_path: Path) -> None:
    words = ["pick", "digits", "--out", str(tmp_path), "--where", "selection_accuracy >= 90"]
    done = CliRunner().invoke(cli.app, words)
    assert isinstance(done.exception, ConfigError)
    assert "--where: 'selection_accuracy >= 90': an accuracy is a fraction" in str(done.exception)
