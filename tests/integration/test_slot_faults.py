"""Workers, controllers and nodes are killed under running trials, which end as if nothing had happened."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.state import list_actors
from safetensors.torch import load_file

from cluster.session import connect
from orchestrator.console import Console
from orchestrator.experiment import ExperimentConfig
from orchestrator.workers import Workers
from tests.integration.fault_lab import (
    Search,
    ends_of,
    epochs_of,
    experiment_of,
    meanwhile,
    pids_of,
    space_of,
    wait_for_epochs,
    wait_until,
)
from tests.unit.trainables.course_lab import same_weights
from trainables.config import BenchSpec, CeConfig, Role, TrialSpec
from trainables.jobs import End, Message, TrainJob
from trainables.line import Follower
from trainables.slots import SlotPool, SlotShape

pytestmark = pytest.mark.ray

WORKER = "RayTrainWorker"
CONTROLLER = "TrainController"
EPOCHS = 5
STUDENT = {
    "factory": "tests.integration.fault_students:slow",
    "arguments": {"seconds": 0.05, "diary": ""},
}
# A state after epochs 2 and 4: what is killed in epoch 4 goes on from 2, and epoch 3 is trained again.
TRAINING = {"epochs": EPOCHS, "checkpoint_every": 2}


def shaped(**cluster: Any) -> ExperimentConfig:
    return experiment_of(STUDENT, **TRAINING).with_overrides(cluster={"gpus_per_worker": 0, **cluster})


@contextmanager
def slots_of(experiment: ExperimentConfig, folder: Path) -> Iterator[Workers]:
    with Workers(experiment, folder, Console(json_only=True)) as workers:
        workers.start_slots()
        yield workers


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    with connect("local", cpus=3):
        yield


@pytest.fixture(scope="module")
def single(session: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """One slot of one worker."""
    with slots_of(shaped(slots=1), tmp_path_factory.mktemp("single")) as workers:
        yield workers


def train(
    workers: Workers, name: str, folder: Path, on_epoch: Callable[[int], None] = lambda _epoch: None
) -> tuple[list[int], dict[str, Any]]:
    """A trial through broker and slot: the epochs that were told, and the weights in the end."""
    experiment = shaped()
    bench = BenchSpec(
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
        objective=CeConfig(),
        student=experiment.student,
        training=experiment.training,
        seed=3,
    )
    follower = Follower(workers.broker, name, TrainJob(bench=bench, trial=trial).plain(), holder="test")
    follower.submit()
    message, epochs = Message(), list[int]()
    while message.end is None:
        message = follower.next()
        epochs.append(message.epoch)
        on_epoch(message.epoch)
    assert message.end is End.COMPLETED, message.reason
    return epochs, load_file(message.checkpoint or "")


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
    whole, expected = train(single, "whole-1", tmp_path)
    before = slot_pid(single)
    epochs, weights = train(
        single, "killed-1", tmp_path, at(3, lambda: os.kill(slot_pid(single), signal.SIGKILL))
    )
    assert epochs == whole == list(range(1, EPOCHS + 1))
    assert same_weights(weights, expected)
    assert slot_pid(single) != before


def test_a_slot_whose_controller_is_killed_is_replaced(single: Workers, tmp_path: Path) -> None:
    _, expected = train(single, "whole-2", tmp_path)
    (controller,) = pids_of(CONTROLLER)
    epochs, weights = train(single, "killed-2", tmp_path, at(3, lambda: os.kill(controller, signal.SIGKILL)))
    assert epochs == list(range(1, EPOCHS + 1))
    assert same_weights(weights, expected)
    assert pids_of(CONTROLLER) not in ([], [controller])


def test_a_killed_rank_of_a_team_brings_the_whole_slot_back(
    session: None, single: Workers, tmp_path: Path
) -> None:
    theirs = {slot_pid(single)}
    with slots_of(shaped(slots=1, workers_per_slot=2), tmp_path) as workers:
        whole, expected = train(workers, "whole-3", tmp_path)
        ranks = set(pids_of(WORKER)) - theirs
        assert len(ranks) == 2
        (second,) = ranks - {slot_pid(workers)}
        epochs, weights = train(workers, "killed-3", tmp_path, at(3, lambda: os.kill(second, signal.SIGKILL)))
        assert epochs == whole == list(range(1, EPOCHS + 1))
        assert same_weights(weights, expected)
        assert not ranks & (set(pids_of(WORKER)) - theirs), "the survivor was not started again"


@contextmanager
def three_nodes() -> Iterator[Cluster]:
    """A head that holds no slot, and two nodes that hold one each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    head = {"num_cpus": 0, "include_dashboard": True, "dashboard_port": port}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_API_SERVER_ADDRESS", f"http://127.0.0.1:{port}")
        patch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "15")
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            cluster.add_node(num_cpus=1)
            cluster.add_node(num_cpus=1)
            with connect(cluster.address):
                yield cluster
        finally:
            cluster.shutdown()  # type: ignore[no-untyped-call]


def node_of_the_slot(cluster: Cluster) -> Any:
    (worker,) = list_actors(filters=[("class_name", "=", WORKER), ("state", "=", "ALIVE")], detail=True)
    (node,) = [node for node in cluster.worker_nodes if node.node_id == worker.node_id]
    return node


def slots_that_are_up(workers: Workers) -> int:
    return len(ray.get(workers.broker.slots.remote()))


@pytest.mark.slow
def test_slots_move_off_a_lost_node_and_onto_a_new_one(tmp_path: Path) -> None:
    lost, grown = tmp_path / "lost", tmp_path / "grown"
    with three_nodes() as nodes:
        experiment = shaped(slots=1)
        with slots_of(experiment, lost) as workers:
            search = Search(workers, experiment, space_of(batch_size=[50, 64]), lost)

            def lose_a_node() -> None:
                wait_for_epochs(lost, 3)
                nodes.remove_node(node_of_the_slot(nodes), allow_graceful=False)

            with meanwhile(lose_a_node):
                events = search.run()
        assert [end["status"] for end in ends_of(events).values()] == ["completed"] * 2
        assert set(epochs_of(events).values()) == {1}
        assert len(epochs_of(events)) == 2 * EPOCHS
        assert len(set(search.told_to_tune)) == len(search.told_to_tune)
        with slots_of(shaped(), grown) as workers:
            assert workers.plan.slots == 1
            wait_until(lambda: slots_that_are_up(workers) == 1, "the first slot")
            nodes.add_node(num_cpus=1)
            wait_until(lambda: slots_that_are_up(workers) == 2, "a slot on the new node")


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
        finally:
            pool.close(5.0)
