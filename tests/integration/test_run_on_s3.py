"""A whole run whose cache lies on S3: actors write it, slots read it, nobody writes the credentials down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.s3_server import S3, running_s3

pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.slow]

REPOSITORY = Path(__file__).parents[2]
EXPERIMENT = """\
name: task
out: OUT
data: {name: digits, train_limit: 300}
teacher: {model: {name: mlp, width: 8}, training: {epochs: 1}}
student: {name: mlp, width: 16}
views: {weak: {views: 2, recipe: [{op: crop_flip, padding: 1, flip_probability: 0}]}}
training: {epochs: 1, precision: fp32}
space: space.yaml
budget: {trials: 1, finalists: 1, seeds: 1}
cluster: {slots: 1}
cache: {rows_per_shard: 100, uri: "URI"}
"""
SPACE = "name: space\nobjectives: {kd: {}}\ntraining: {lr: {uniform: [0.01, 0.1]}}\n"


@pytest.fixture
def s3() -> Iterator[S3]:
    with running_s3() as running:
        yield running


def stillhouse(s3: S3, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    credentials = {"AWS_ACCESS_KEY_ID": s3.key, "AWS_SECRET_ACCESS_KEY": s3.secret}
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", *words],
        cwd=folder,
        env={**os.environ, **credentials, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def test_a_run_keeps_its_cache_on_s3_and_its_credentials_to_itself(s3: S3, tmp_path: Path) -> None:
    text = EXPERIMENT.replace("OUT", str(tmp_path / "out")).replace("URI", s3.uri("run"))
    (tmp_path / "task.yaml").write_text(text)
    (tmp_path / "space.yaml").write_text(SPACE)
    run = stillhouse(s3, tmp_path, "run", "task.yaml", "--json")
    assert run.returncode == 0, run.stderr
    cache = json.loads(run.stdout)["cache"]
    assert (cache["uri"], cache["rows"]) == (s3.uri("run"), 600)
    verified = stillhouse(s3, tmp_path, "cache", "verify", "task.yaml", "--deep", "--json")
    assert verified.returncode == 0, verified.stderr
    found = json.loads(verified.stdout)
    assert (found["ok"], found["files"], found["proof"]["pairs"]) == (True, 6, 64)
    told = [run.stdout, run.stderr, verified.stdout, verified.stderr]
    kept = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    for secret in (s3.key, s3.secret):
        assert not any(secret in text for text in told)
        assert not any(secret.encode() in data for data in kept)
