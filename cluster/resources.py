"""What a cluster holds, and how many warm slots fit into it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import ray

from cluster.errors import ClusterError

# Ray counts CPUs and GPUs in ten-thousandths, rounded: 1/7 of a GPU is 0.1429 to it, and six of those fit.
_UNITS: Final = 10_000
_GPU_TYPE: Final = "accelerator_type:"
_NODES_NAMED: Final = 8


@dataclass(frozen=True)
class Node:
    """One machine, or container, that is alive: logical CPUs and GPUs as Ray counts them."""

    name: str
    cpus: float
    gpus: float = 0.0
    memory_bytes: int = 0
    gpu_type: str | None = None


@dataclass(frozen=True)
class Capacity:
    """All that a cluster holds, in use or not."""

    machines: tuple[Node, ...]

    @property
    def nodes(self) -> int:
        """How many nodes are alive."""
        return len(self.machines)

    @property
    def cpus(self) -> float:
        """Logical CPUs of all nodes."""
        return sum(node.cpus for node in self.machines)

    @property
    def gpus(self) -> float:
        """GPUs of all nodes."""
        return sum(node.gpus for node in self.machines)

    @property
    def memory_bytes(self) -> int:
        """Memory that Ray may give to tasks and actors."""
        return sum(node.memory_bytes for node in self.machines)

    @property
    def gpu_types(self) -> tuple[str, ...]:
        """Ray's names of the GPU types, each once, sorted."""
        return tuple(sorted({node.gpu_type for node in self.machines if node.gpu_type}))


@dataclass(frozen=True)
class SlotPlan:
    """How many slots to keep warm; CPUs and GPUs are those of one worker."""

    slots: int
    cpus: int
    gpus: float
    workers_per_slot: int = 1

    def described(self) -> str:
        """The plan in words, as "2 slots of 2 workers of 1 CPU and 1 GPU"."""
        return f"{_count(self.slots, 'slot')} of {_shape(self.workers_per_slot, self.cpus, self.gpus)}"


def capacity() -> Capacity:
    """The nodes of the cluster that this process is connected to.

    Raises:
        ClusterError: there is no connection, or no node is alive.
    """
    if not ray.is_initialized():
        raise ClusterError("not connected to a cluster; open one with connect() first")
    found = capacity_of(ray.nodes())  # type: ignore[no-untyped-call]
    if not found.machines:
        raise ClusterError("the cluster has no living node; look at `ray status` on its head node")
    return found


def capacity_of(nodes: Iterable[Mapping[str, Any]]) -> Capacity:
    """The capacity described by Ray's table of nodes (`ray.nodes()`); dead nodes do not count."""
    return Capacity(tuple(_node(entry) for entry in nodes if entry.get("Alive")))


def plan_slots(
    capacity: Capacity,
    *,
    slots: int | None = None,
    cpus_per_worker: int = 1,
    gpus_per_worker: float | None = None,
    workers_per_slot: int = 1,
    reserved_cpus: float = 0,
) -> SlotPlan:
    """Plans the slots: those asked for, or as many as the cluster holds.

    The arithmetic goes node by node, since a worker lives on one node, and GPU by GPU, since a fraction lives
    on one GPU: a GPU holds floor(1 / fraction) workers. `gpus_per_worker` of None means one where the cluster
    has GPUs and none elsewhere. `reserved_cpus` are kept free on one node for work other than slots.

    Raises:
        ClusterError: the shape makes no sense, or the cluster can never hold it; with the arithmetic.
    """
    if gpus_per_worker is None:
        gpus_per_worker = 1.0 if capacity.gpus >= 1 else 0.0
    _check_shape(slots, cpus_per_worker, gpus_per_worker, workers_per_slot)
    held = slots_held(
        capacity,
        cpus_per_worker=cpus_per_worker,
        gpus_per_worker=gpus_per_worker,
        workers_per_slot=workers_per_slot,
        reserved_cpus=reserved_cpus,
    )
    if held < (slots or 1):
        wanted = _wanted(slots or 1, cpus_per_worker, gpus_per_worker, workers_per_slot)
        kept = f", {reserved_cpus:g} CPUs of it kept free" if reserved_cpus else ""
        why = _too_large(capacity.machines, workers_per_slot, cpus_per_worker, gpus_per_worker)
        raise ClusterError(
            f"asks for {wanted}; the cluster holds {held} ({_inventory(capacity.machines)}{kept}){why}; "
            "ask for fewer or smaller slots, or add nodes"
        )
    return SlotPlan(slots or held, cpus_per_worker, gpus_per_worker, workers_per_slot)


def slots_held(
    capacity: Capacity,
    *,
    cpus_per_worker: int,
    gpus_per_worker: float,
    workers_per_slot: int = 1,
    reserved_cpus: float = 0,
) -> int:
    """How many slots of this shape fit, by the same arithmetic; a slot's workers may be on several nodes."""
    workers = _workers(capacity.machines, cpus_per_worker, gpus_per_worker, reserved_cpus)
    return workers // workers_per_slot


def _node(entry: Mapping[str, Any]) -> Node:
    resources = entry.get("Resources", {})
    types = sorted(name.removeprefix(_GPU_TYPE) for name in resources if name.startswith(_GPU_TYPE))
    return Node(
        name=str(entry.get("NodeManagerHostname") or entry.get("NodeName") or entry.get("NodeID")),
        cpus=float(resources.get("CPU", 0)),
        gpus=float(resources.get("GPU", 0)),
        memory_bytes=int(resources.get("memory", 0)),
        gpu_type=types[0] if types else None,
    )


def _check_shape(slots: int | None, cpus: float, gpus: float, workers_per_slot: int) -> None:
    if slots is not None and slots < 1:
        raise ClusterError(f"{slots} slots cannot train anything; ask for 1 or more, or leave it out")
    if workers_per_slot < 1:
        raise ClusterError(f"a slot of {workers_per_slot} workers cannot train; it needs 1 or more")
    for what, amount in (("CPUs", cpus), ("GPUs", gpus)):
        if not math.isfinite(amount) or amount < 0 or 0 < amount < 1 / _UNITS:
            raise ClusterError(f"{amount:g} {what} per worker is no amount; Ray counts from 0.0001 up")
    if not _units(cpus) and not _units(gpus):
        raise ClusterError("a worker with neither CPUs nor GPUs has no place; give it at least one")
    if gpus > 1 and gpus != int(gpus):
        raise ClusterError(f"{gpus:g} GPUs per worker: beyond one GPU only whole numbers can be placed")
    if 0 < gpus < 1 and workers_per_slot > 1:
        raise ClusterError(
            f"{workers_per_slot} workers of {gpus:g} GPUs each: NCCL refuses two workers of one slot on one "
            "GPU; use one worker per slot, or whole GPUs"
        )


def _too_large(nodes: tuple[Node, ...], workers_per_slot: int, cpus: float, gpus: float) -> str:
    """Says so where not even one worker fits on any node: then no number of slots is small enough."""
    if not nodes or any(_workers_on(node, cpus, gpus, 0) for node in nodes):
        return ""
    largest = max(nodes, key=lambda node: (min(node.gpus, gpus), min(node.cpus, cpus)))
    which = "the only node" if len(nodes) == 1 else f"the largest of {len(nodes)} nodes"
    return (
        f"; a slot needs {_shape(workers_per_slot, cpus, gpus)}, each worker on one node, and {which} "
        f"has {_count(largest.cpus, 'CPU')} and {_count(largest.gpus, 'GPU')}"
    )


def _workers(nodes: tuple[Node, ...], cpus: float, gpus: float, reserved_cpus: float) -> int:
    """Workers that fit, with the reserved CPUs taken where they cost the fewest workers."""
    fits = [_workers_on(node, cpus, gpus, 0) for node in nodes]
    if not reserved_cpus:
        return sum(fits)
    losses = [
        fit - _workers_on(node, cpus, gpus, reserved_cpus)
        for node, fit in zip(nodes, fits, strict=True)
        if node.cpus >= reserved_cpus
    ]
    return sum(fits) - min(losses) if losses else 0


def _workers_on(node: Node, cpus: float, gpus: float, reserved_cpus: float) -> int:
    limits = []
    if cpus_each := _units(cpus):
        limits.append(max(0, _units(node.cpus) - _units(reserved_cpus)) // cpus_each)
    if gpus_each := _units(gpus):
        whole = int(node.gpus)
        limits.append(whole // int(gpus) if gpus >= 1 else whole * (_UNITS // gpus_each))
    return min(limits)


def _units(amount: float) -> int:
    return math.floor(amount * _UNITS + 0.5)


def _wanted(slots: int, cpus: float, gpus: float, workers_per_slot: int) -> str:
    shape = " + ".join(part for part in (_amount(cpus, "CPU"), _amount(gpus, "GPU")) if part)
    workers = f"{workers_per_slot} workers of " if workers_per_slot > 1 else ""
    return f"{slots} slot{'s' if slots > 1 else ''} x {workers}{shape}"


def _shape(workers: int, cpus: float, gpus: float) -> str:
    each = f"{_count(cpus, 'CPU')} and {_count(gpus, 'GPU')}"
    return f"{_count(workers, 'worker')} of {each}"


def _count(number: float, what: str) -> str:
    return f"{number:g} {what}{'' if number == 1 else 's'}"


def _inventory(nodes: tuple[Node, ...]) -> str:
    parts = []
    for node in nodes[:_NODES_NAMED]:
        amounts = [_amount(node.cpus, "CPUs" if node.cpus != 1 else "CPU") or "no CPUs"]
        if node.gpus:
            amounts.append(_amount(node.gpus, "GPUs" if node.gpus != 1 else "GPU"))
        parts.append(f"node {node.name}: {', '.join(amounts)}")
    if len(nodes) > _NODES_NAMED:
        parts.append(f"and {len(nodes) - _NODES_NAMED} more nodes")
    return "; ".join(parts) or "no nodes"


def _amount(number: float, unit: str) -> str:
    return f"{number:g} {unit}" if number else ""
