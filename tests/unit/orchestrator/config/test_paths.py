from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.config.loading import LoadedExperiment, load_experiment
from orchestrator.config.paths import out_folder

IN_A_JOB = {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}


@pytest.fixture(scope="module")
def loaded() -> LoadedExperiment:
    return load_experiment("digits")


def with_out(loaded: LoadedExperiment, out: str | None) -> LoadedExperiment:
    return replace(loaded, config=loaded.config.with_overrides(out=out))


def test_a_relative_folder_starts_at_the_working_folder(
    loaded: LoadedExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert out_folder(with_out(loaded, None), {}) == tmp_path / "out" / "digits"
    assert out_folder(with_out(loaded, "here"), {}) == tmp_path / "here"


def test_in_a_ray_job_a_relative_folder_starts_at_home(
    loaded: LoadedExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The working folder of a job is a copy that goes away with it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert out_folder(with_out(loaded, None), IN_A_JOB) == tmp_path / "stillhouse" / "out" / "digits"


@pytest.mark.parametrize("environment", [{}, IN_A_JOB])
def test_an_absolute_folder_stays_where_it_is(
    loaded: LoadedExperiment, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert out_folder(with_out(loaded, "/data/out"), environment) == Path("/data/out")
    assert out_folder(with_out(loaded, "~/out"), environment) == tmp_path / "out"
