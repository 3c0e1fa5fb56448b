from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from typer.testing import CliRunner

from orchestrator import cli
from orchestrator.commands import completion, pick, record
from orchestrator.commands.completion import command_line
from orchestrator.config.constraints import parse_constraints
from orchestrator.config.loading import LoadedExperiment, load_experiment
from orchestrator.config.overrides import Overrides
from orchestrator.records.picking.nearest_miss import NobodyFits, nobody_fits
from trainables.errors import ConfigError


@pytest.mark.parametrize(
    ("command", "overrides"),
    [
        ("run", Overrides()),
        ("run", Overrides("my spaces/kd.yaml", Path("out/a b"), 7, finalists=3)),
        ("pick", Overrides("crld", Path("/elsewhere"), 7, "latency_ms <= 2 and params <= 1e6")),
        ("pick", Overrides(rank="latency_ms", pareto="accuracy,latency_ms")),
        ("record sync", Overrides("kd", Path("out"), 7, "params <= 1e6", 3)),
        ("record sync", Overrides(rank="latency_ms", pareto="accuracy,latency_ms")),
    ],
)
def test_the_command_that_goes_on_is_the_command_that_was_given(
    command: Literal["run", "pick", "record sync"], overrides: Overrides, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[Any, ...]] = []
    for module in (cli, pick, record):
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


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--rank", "test_accuracy", "--rank: 'test_accuracy' is a figure of the test split"),
        ("--rank", "latency", "--rank: unknown figure 'latency'"),
        ("--pareto", "accuracy", "--pareto: 'accuracy': a front needs two figures or more"),
        (
            "--pareto",
            "accuracy,gain_over_control",
            "--pareto: 'gain_over_control' is a figure of the test split",
        ),
    ],
)
def test_figures_that_choose_nobody_are_refused_when_the_option_is_read(
    option: str, value: str, said: str, tmp_path: Path
) -> None:
    done = CliRunner().invoke(cli.app, ["pick", "digits", "--out", str(tmp_path), option, value])
    assert isinstance(done.exception, ConfigError)
    assert said in str(done.exception)


def test_where_nobody_fits_a_table_says_who_comes_closest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(_loaded: object) -> None:
        figures = {"a": {"params": 5.0, "selection_accuracy": 0.9}}
        raise nobody_fits(figures, parse_constraints("params <= 1"), lambda name: (name,))

    monkeypatch.setattr("orchestrator.pipeline.finished.finished_summary", lambda _loaded: None)
    monkeypatch.setattr("orchestrator.pipeline.finished.require_any_search", lambda _loaded: None)
    monkeypatch.setattr("orchestrator.pipeline.finished.require_somebody_fits", refuse)
    done = CliRunner().invoke(cli.app, ["pick", "digits", "--out", str(tmp_path)])
    assert isinstance(done.exception, NobodyFits)
    assert "closest that meets the others" in done.output
    assert "params 5 misses params <= 1 by 4" in done.output


@pytest.mark.parametrize(
    ("mlflow_is_away", "asked"), [(False, "models:/pets/3"), (True, "models:/pets@best")]
)
def test_a_finished_run_of_an_alias_is_known_by_the_version_that_it_noted(
    mlflow_is_away: bool, asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pinned_uri(uri: str, *, store: str) -> str:
        if mlflow_is_away:
            raise ConfigError("checkpoint cannot be had from MLflow")
        return "models:/pets/3"

    def finished_summary(loaded: LoadedExperiment) -> None:
        names.append(loaded.config.teacher.checkpoint)

    names: list[str | None] = []
    digits = load_experiment("digits")
    teacher = {"model": {"name": "mlp"}, "checkpoint": "models:/pets@best"}
    config = digits.config.with_overrides(out=str(tmp_path / "out"), teacher=teacher)
    monkeypatch.setattr(completion, "load_experiment", lambda *_, **__: replace(digits, config=config))
    monkeypatch.setattr("orchestrator.tracking.stored_weights.pinned_uri", pinned_uri)
    monkeypatch.setattr("orchestrator.pipeline.brought_weights._store", lambda *_: "sqlite:///x")
    monkeypatch.setattr("orchestrator.pipeline.finished.finished_summary", finished_summary)
    with pytest.raises(ConfigError, match="holds no run of digits"):
        completion.complete("record sync", "digits", Overrides(), json_only=True)
    assert names == [asked]
