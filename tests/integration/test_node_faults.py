"""A node is lost under a running search, and one comes: three nodes on this machine."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.state import list_actors

from cluster.session import connect
from orchestrator.workers import Workers
from tests.integration.fault_lab import (
    Search,
    ends_of,
    epochs_of,
    events_in,
    meanwhile,
    space_of,
    wait_for_epochs,
    wait_until,
)
from tests.integration.slot_lab import EPOCHS, WORKER, shaped, slots_of

pytestmark = [pytest.mark.ray, pytest.mark.slow]


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


def test_slots_move_off_a_lost_node_and_onto_a_new_one(tmp_path: Path) -> None:
    lost, grown = tmp_path / "lost", tmp_path / "grown"
    with three_nodes() as nodes:
        experiment = shaped(0.2, slots=1)
        with slots_of(experiment, lost) as workers:
            search = Search(workers, experiment, space_of(batch_size=[50, 64]), lost)

            def lose_a_node() -> None:
                wait_for_epochs(lost, 3)
                nodes.remove_node(node_of_the_slot(nodes), allow_graceful=False)
                assert not ends_of(events_in(lost)), "the node was lost too late to matter"

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
