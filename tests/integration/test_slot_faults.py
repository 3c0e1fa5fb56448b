"""Workers and controllers are killed under running trials, which end as if nothing had happened."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import ray
from safetensors.torch import load_file

from cluster.session import connect
from orchestrator.config.schema import ExperimentConfig
from orchestrator.pipeline.workers import Workers
from orchestrator.terminal.console import Console
from tests.integration.slot_experiments import CONTROLLER, EPOCHS, WORKER, shaped, slots_of
from tests.integration.watched_search import Search, ends_of, events_in, pids_of, space_of, wait_until
from tests.unit.trainables.training.small_courses import same_weights, untimed
from trainables.config import ModelConfig, ModelName, ObjectiveConfig, Role, TrialSpec, WorkbenchSpec
from trainables.config.mutual.contrast import MclForm
from trainables.config.objectives import CeConfig, DmlConfig, MclConfig
from trainables.errors import StillhouseError
from trainables.slots.follower import Follower
from trainables.slots.messages import End, Message, TrainJob
from trainables.slots.pool import SlotPool, SlotShape

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    # A controller that is an actor has a helper that asks the dashboard whether it lives.
    with connect("local", cpus=3, dashboard=True):
        yield


@pytest.fixture(scope="module")
def single(session: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """One slot of one worker."""
    with slots_of(shaped(slots=1), tmp_path_factory.mktemp("single")) as workers:
        yield workers


@pytest.fixture(scope="module")
def pair(session: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """One slot of two workers."""
    with slots_of(shaped(slots=1, workers_per_slot=2), tmp_path_factory.mktemp("pair")) as workers:
        yield workers


@dataclass(frozen=True)
class Asked:
    """What a trial trains: its objective, the networks beside the student, what its recipe has of its own."""

    objective: ObjectiveConfig
    peers: tuple[ModelConfig, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)


ALONE = Asked(CeConfig())
OTHER_SHAPE = ModelConfig(name=ModelName.CONVNET, width=4)
TOGETHER = Asked(DmlConfig(), (OTHER_SHAPE,), {"ema": 0.9})
"""Two networks of unlike shapes, each with a running mean of its weights."""
WITH_BANKS = Asked(MclConfig(form=MclForm.BANK, dim=8, negatives=64), (OTHER_SHAPE,))
"""Two networks, and an objective with a state: projections, and a table by sample for each network."""


def job_of(experiment: ExperimentConfig, name: str, folder: Path, asked: Asked = ALONE) -> TrainJob:
    workbench = WorkbenchSpec(
        data=experiment.data,
        views=experiment.views,
        view_seed=1,
        cache_uri=None,
        cache_manifest=None,
        checkpoints=str(folder),
    )
    trial = TrialSpec(
        trial_id=name,
        role=Role.SEARCH,
        objective=asked.objective,
        student=experiment.student.network,
        training=experiment.training.with_overrides(**asked.recipe),
        seed=3,
        peers=asked.peers,
    )
    return TrainJob(workbench=workbench, trial=trial)


def done(
    workers: Workers, job: TrainJob, on_epoch: Callable[[int], None] = lambda _epoch: None
) -> list[Message]:
    """Everything that is told about a job which a slot does."""
    follower = Follower(workers.broker, job.job_id, job.plain(), holder="test")
    follower.submit()
    messages = [follower.next()]
    while messages[-1].end is None:
        on_epoch(messages[-1].epoch)
        messages.append(follower.next())
    return messages


def train(
    workers: Workers,
    name: str,
    folder: Path,
    on_epoch: Callable[[int], None] = lambda _epoch: None,
    *,
    asked: Asked = ALONE,
) -> tuple[dict[int, dict[str, float]], dict[str, Any]]:
    """A trial through broker and slot: what was told of each epoch, and the weights in the end."""
    messages = done(workers, job_of(shaped(), name, folder, asked), on_epoch)
    assert messages[-1].end is End.COMPLETED, messages[-1].reason
    assert [message.epoch for message in messages] == list(range(1, EPOCHS + 1)), "each once, in order"
    told = {message.epoch: untimed(message.metrics) for message in messages}
    return told, load_file(messages[-1].checkpoint or "")


def at(epoch: int, action: Callable[[], Any]) -> Callable[[int], None]:
    """Does something once, when this epoch is told."""

    def on_epoch(told: int) -> None:
        if told == epoch:
            action()

    return on_epoch


def slot_pid(workers: Workers) -> int:
    """The process of rank 0 of the only slot."""
    (facts,) = ray.get(workers.broker.slots.remote()).values()
    return int(facts["pid"])


def test_a_killed_worker_is_started_again_and_its_trial_ends_with_the_same_bits(
    single: Workers, tmp_path: Path
) -> None:
    whole, expected = train(single, "whole-1", tmp_path, asked=TOGETHER)
    before = slot_pid(single)
    kills = at(3, lambda: os.kill(slot_pid(single), signal.SIGKILL))
    told, weights = train(single, "killed-1", tmp_path, kills, asked=TOGETHER)
    assert "selection/peer1_accuracy" in told[EPOCHS]
    assert told == whole  # of the peer too, to the bit: its losses hang on all of its state
    assert same_weights(weights, expected)
    assert slot_pid(single) != before


def test_a_slot_is_one_process_of_ray_train(single: Workers) -> None:
    wait_until(lambda: len(ray.get(single.broker.slots.remote())) == 1, "the slot")
    for helper in (CONTROLLER, "PlacementGroupCleaner", "SynchronizationActor"):
        assert pids_of(helper) == []


def test_a_slot_whose_controller_is_killed_is_replaced(
    single: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an actor, which it is with a Ray whose parts have other names."""
    monkeypatch.setattr("trainables.slots.slot_trainer.can_be_in_driver", lambda: False)
    whole, expected = train(single, "whole-2", tmp_path)
    before = set(pids_of(WORKER))
    with slots_of(shaped(slots=1), tmp_path / "slots") as workers:
        wait_until(lambda: len(ray.get(workers.broker.slots.remote())) == 1, "the slot")
        (controller,) = pids_of(CONTROLLER)
        kill = at(3, lambda: os.kill(controller, signal.SIGKILL))
        told, weights = train(workers, "killed-2", tmp_path, kill)
        assert told == whole
        assert same_weights(weights, expected)
        assert pids_of(CONTROLLER) not in ([], [controller])
    assert set(pids_of(WORKER)) == before


def test_a_killed_rank_of_a_team_brings_the_whole_slot_back(
    single: Workers, pair: Workers, tmp_path: Path
) -> None:
    whole, expected = train(pair, "whole-3", tmp_path, asked=WITH_BANKS)
    theirs = {slot_pid(single)}
    ranks = set(pids_of(WORKER)) - theirs
    assert len(ranks) == 2
    (second,) = ranks - {slot_pid(pair)}
    kills = at(3, lambda: os.kill(second, signal.SIGKILL))
    told, weights = train(pair, "killed-3", tmp_path, kills, asked=WITH_BANKS)
    assert {"selection/peer1_accuracy", "train/peer1_vcl"} <= told[EPOCHS].keys()
    assert told == whole
    assert same_weights(weights, expected)
    assert not ranks & (set(pids_of(WORKER)) - theirs), "the survivor was not started again"


def test_what_one_rank_raises_alone_fails_the_trial_and_not_the_slot(pair: Workers, tmp_path: Path) -> None:
    student = {"factory": "tests.integration.rank_students:one_sided"}
    job = job_of(shaped().with_overrides(student=student), "one-sided", tmp_path)
    (message,) = done(pair, job)
    assert (message.end, message.reason) == (End.FAILED, "ValueError: rank 1 has had enough")
    train(pair, "after-3", tmp_path)


@pytest.mark.slow
def test_a_slot_that_cannot_be_placed_ends_and_says_so(
    session: None, single: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "3")
    with Workers(shaped(), tmp_path, Console(json_only=True)) as workers:
        pool = SlotPool(
            workers.broker, SlotShape(99, 0), shaped().data, str(tmp_path / "slots"), room=lambda: 0
        )
        pool.start(1)
        try:
            wait_until(lambda: ray.get(workers.broker.failure.remote()) is not None, "the slot's end")
            reason = ray.get(workers.broker.failure.remote())
            assert "no slot is left" in reason
            assert "the cluster has no room for it any more" in reason
            search = Search(workers, shaped(), space_of(batch_size=[50]), tmp_path / "search")
            with pytest.raises(StillhouseError, match=r"(?s)the search stopped: no slot is left.*run again"):
                search.run()
            assert not ends_of(events_in(search.folder)), "a trial is not to blame for the slots"
        finally:
            pool.close(5.0)
    events = replace(search, workers=single).run()
    assert [end["status"] for end in ends_of(events).values()] == ["completed"]
