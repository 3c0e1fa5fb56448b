"""The slot that makes the teacher, or the cache, is killed; what it had done is not done again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from orchestrator.pipeline.workers import Workers
from tests.integration.slot_experiments import shaped, slots_of
from tests.integration.slow_cache_build import SHARDS, committed, request_in
from tests.integration.watched_search import meanwhile, pids_of, wait_until
from trainables.cache.node.reader import open_cache
from trainables.config import DataConfig, DataName, ModelConfig, ModelName, TrainingConfig, ViewsConfig
from trainables.errors import CacheError, CheckpointError
from trainables.teacher.cache_build import build_cache
from trainables.training.train_teacher import TeacherFacts, TeacherRequest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

EPOCHS = 6
KILLED_IN = 4
ENOUGH = 4


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with slots_of(shaped(slots=1), tmp_path_factory.mktemp("slots")) as workers:
        yield workers


def asked(folder: Path, checkpoint: str | None = None) -> TeacherRequest:
    return TeacherRequest(
        data=DataConfig(name=DataName.DIGITS, train_limit=200),
        model=ModelConfig(name=ModelName.MLP, width=16),
        checkpoint=checkpoint,
        training=TrainingConfig(epochs=EPOCHS, batch_size=50, checkpoint_every=1),
        views=ViewsConfig(),
        seed=5,
        folder=str(folder),
    )


def kill_the_slot(workers: Workers) -> None:
    (facts,) = ray.get(workers.broker.slots.remote()).values()
    os.kill(int(facts["pid"]), signal.SIGKILL)


def test_a_teacher_whose_slot_is_killed_is_the_same_and_each_epoch_is_told_once(
    workers: Workers, tmp_path: Path
) -> None:
    told: list[int] = []
    whole: TeacherFacts = workers.teacher(asked(tmp_path / "whole"), lambda *_: None)

    def on_epoch(epoch: int, _figures: dict[str, float]) -> None:
        told.append(epoch)
        if epoch == KILLED_IN:
            kill_the_slot(workers)

    again = workers.teacher(asked(tmp_path / "killed"), on_epoch)
    assert again.fingerprint == whole.fingerprint
    assert told == list(range(1, EPOCHS + 1))


def test_what_is_wrong_with_a_teacher_is_raised_in_the_driver(workers: Workers, tmp_path: Path) -> None:
    checkpoint = tmp_path / "broken.safetensors"
    checkpoint.write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"broken\.safetensors"):
        workers.teacher(asked(tmp_path, checkpoint=str(checkpoint)), lambda *_: None)


def test_a_cache_whose_slot_is_killed_keeps_its_shards_and_starts_no_actors(
    workers: Workers, tmp_path: Path
) -> None:
    request, kept = request_in(tmp_path), dict[str, tuple[int, int]]()
    actors: list[int] = []

    def act() -> None:
        wait_until(lambda: len(committed(request)) >= ENOUGH, "the first shards")
        kept.update(committed(request))
        actors.extend(pids_of("MapWorker(MapBatches(TeacherWorker))"))
        kill_the_slot(workers)

    with meanwhile(act):
        summary = build_cache(request, progress=lambda *_: None, computing=workers.computing())
    files = committed(request)
    assert (len(files), actors) == (SHARDS, [])
    assert {name: files[name] for name in kept} == kept
    assert open_cache(summary.uri, manifest_sha=summary.manifest, scratch=tmp_path / "scratch")


def test_a_slot_that_cannot_load_the_teacher_ends_the_pass(workers: Workers, tmp_path: Path) -> None:
    request = request_in(tmp_path)
    (tmp_path / "teacher.safetensors").unlink()
    with pytest.raises(CacheError, match="the teacher pass stopped"):
        build_cache(request, progress=lambda *_: None, computing=workers.computing())
