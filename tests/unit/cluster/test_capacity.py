from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import ClusterError
from cluster.resources import Capacity, Node, SlotPlan, capacity_of, plan_slots, slots_held


def _nodes(*shapes: tuple[float, float]) -> Capacity:
    names = "abcdefghij"
    return Capacity(tuple(Node(names[i], cpus, gpus) for i, (cpus, gpus) in enumerate(shapes)))


@pytest.mark.parametrize(
    ("shapes", "cpus", "gpus", "slots"),
    [
        ([(2, 0)], 1, None, 2),
        ([(3, 0), (3, 0)], 2, None, 2),  # 6 CPUs in all would be 3, but a worker lives on one node
        ([(8, 1)], 1, None, 1),  # one GPU each is the default where there are GPUs
        ([(8, 2), (4, 0)], 1, None, 2),
        ([(8, 2), (4, 0)], 1, 0, 12),
        ([(16, 8)], 1, 0.15, 16),  # 8 GPUs x 6 would be 48: the CPUs are the limit
        ([(64, 8)], 1, 0.15, 48),  # not 53: a fraction does not span two GPUs
        ([(64, 1)], 1, 0.25, 4),
        ([(64, 1)], 1, 1 / 3, 3),
        ([(64, 1)], 1, 1 / 7, 6),  # Ray rounds 1/7 up to 0.1429
        ([(64, 3), (64, 3)], 1, 2, 2),
    ],
)
def test_auto_slots_are_counted_node_by_node_and_gpu_by_gpu(
    shapes: list[tuple[float, float]], cpus: int, gpus: float | None, slots: int
) -> None:
    plan = plan_slots(_nodes(*shapes), cpus_per_worker=cpus, gpus_per_worker=gpus)
    assert plan.slots == slots


def test_asked_slots_are_planned_when_they_fit() -> None:
    assert plan_slots(_nodes((8, 1)), slots=3, cpus_per_worker=2, gpus_per_worker=0.25) == SlotPlan(
        3, 2, 0.25
    )


def test_refusal_shows_the_arithmetic() -> None:
    with pytest.raises(
        ClusterError, match=r"asks for 3 slots x 1 CPU; the cluster holds 2 \(node a: 2 CPUs\)"
    ):
        plan_slots(_nodes((2, 0)), slots=3)


def test_refusal_names_cpus_and_gpus_of_each_node() -> None:
    with pytest.raises(
        ClusterError, match=r"1 slot x 2 CPU \+ 4 GPU; .* holds 0 \(node a: 8 CPUs, 2 GPUs; node b"
    ):
        plan_slots(_nodes((8, 2), (8, 2)), cpus_per_worker=2, gpus_per_worker=4)


def test_refusal_of_a_large_cluster_stays_short() -> None:
    with pytest.raises(ClusterError, match="and 92 more nodes") as caught:
        plan_slots(Capacity(tuple(Node(f"n{i}", 1) for i in range(100))), slots=101)
    assert len(str(caught.value)) < 400


def test_reserved_cpus_stay_free_where_they_cost_least() -> None:
    # Node b has 3 CPUs, of which workers of 2 CPUs leave one unused.
    assert plan_slots(_nodes((4, 0), (3, 0)), cpus_per_worker=2, reserved_cpus=1).slots == 3
    assert plan_slots(_nodes((4, 0)), cpus_per_worker=2, reserved_cpus=1).slots == 1


def test_workers_of_one_slot_may_sit_on_several_nodes() -> None:
    assert plan_slots(_nodes((3, 0), (3, 0)), workers_per_slot=2).slots == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slots": 0}, "0 slots"),
        ({"workers_per_slot": 0}, "0 workers"),
        ({"gpus_per_worker": 1.5}, "only whole numbers"),
        ({"gpus_per_worker": -1}, "-1 GPUs"),
        ({"gpus_per_worker": math.nan}, "nan GPUs"),
        ({"cpus_per_worker": 0, "gpus_per_worker": 0}, "neither CPUs nor GPUs"),
        ({"gpus_per_worker": 0.5, "workers_per_slot": 2}, "NCCL refuses"),
    ],
)
def test_senseless_shapes_are_refused_with_a_reason(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ClusterError, match=message):
        plan_slots(_nodes((8, 4)), **options)


@given(
    shapes=st.lists(st.tuples(st.integers(0, 64), st.integers(0, 8)), min_size=1, max_size=6),
    cpus=st.integers(1, 16),
    hundredths=st.integers(1, 100),
)
def test_planned_slots_fit_every_node_and_one_more_does_not(
    shapes: list[tuple[float, float]], cpus: int, hundredths: int
) -> None:
    capacity = _nodes(*shapes)
    held = int(sum(min(node_cpus // cpus, gpus * (100 // hundredths)) for node_cpus, gpus in shapes))
    shape: dict[str, Any] = {"cpus_per_worker": cpus, "gpus_per_worker": hundredths / 100}
    if held:
        assert plan_slots(capacity, **shape).slots == held
    with pytest.raises(ClusterError, match=f"the cluster holds {held} "):
        plan_slots(capacity, slots=held + 1, **shape)


@given(shapes=st.lists(st.tuples(st.integers(1, 64), st.just(0)), min_size=1, max_size=6))
def test_what_is_planned_by_itself_is_accepted_when_asked_for(shapes: list[tuple[float, float]]) -> None:
    capacity = _nodes(*shapes)
    slots = plan_slots(capacity).slots
    assert plan_slots(capacity, slots=slots).slots == slots
    with pytest.raises(ClusterError, match="the cluster holds"):
        plan_slots(capacity, slots=slots + 1)


def test_rays_table_of_nodes_becomes_a_capacity() -> None:
    table = [
        {
            "Alive": True,
            "NodeManagerHostname": "gpu-1",
            "Resources": {"CPU": 16.0, "GPU": 2.0, "memory": 1024.0, "accelerator_type:H200": 1.0},
        },
        {"Alive": True, "NodeManagerHostname": "cpu-1", "Resources": {"CPU": 4.0, "memory": 512.0}},
        {"Alive": False, "NodeManagerHostname": "gone", "Resources": {"CPU": 99.0}},
    ]
    found = capacity_of(table)
    assert [machine.name for machine in found.machines] == ["gpu-1", "cpu-1"]
    assert (found.nodes, found.cpus, found.gpus, found.memory_bytes) == (2, 20, 2, 1536)
    assert found.gpu_types == ("H200",)


def test_a_shape_that_no_node_holds_is_refused_with_the_largest_node() -> None:
    with pytest.raises(ClusterError, match="ask for fewer or smaller") as caught:
        plan_slots(_nodes((2, 0), (1, 0), (1, 0)), cpus_per_worker=4, gpus_per_worker=1, workers_per_slot=2)
    assert (
        "a slot needs 2 workers of 4 CPUs and 1 GPU, each worker on one node, and the largest of 3 nodes "
        "has 2 CPUs and 0 GPUs"
    ) in str(caught.value)


def test_slots_held_count_workers_that_fit_and_may_be_none() -> None:
    shape: dict[str, Any] = {"cpus_per_worker": 1, "gpus_per_worker": 0, "workers_per_slot": 2}
    assert slots_held(_nodes((3, 0), (2, 0)), **shape) == 2
    assert slots_held(_nodes((1, 0)), **shape) == 0


def test_a_plan_says_what_it_starts() -> None:
    assert SlotPlan(2, 1, 0.5).described() == "2 slots of 1 worker of 1 CPU and 0.5 GPUs"
    assert SlotPlan(1, 4, 1, 2).described() == "1 slot of 2 workers of 4 CPUs and 1 GPU"
