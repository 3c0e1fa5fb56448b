"""Builders of a cache are killed, and get in each other's way; what was committed is never computed again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ray.util.state import list_actors

from cluster.session import connect
from tests.integration.slow_cache_build import SHARDS, committed, request_in, start_builder, summary_of
from tests.integration.three_node_cluster import three_nodes
from tests.integration.watched_search import living_actors, meanwhile, wait_until
from trainables.cache.node.reader import open_cache
from trainables.config import KeptNetwork
from trainables.data import load_training
from trainables.teacher.alignment_proof import prove_alignment
from trainables.teacher.cache_build import CacheSummary, build_cache
from trainables.teacher.cache_request import CacheRequest
from trainables.teacher.loading import load_teacher

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ENOUGH = 4
"""Committed shards after which something is killed."""

Files = dict[str, tuple[int, int]]


def assert_is_right(request: CacheRequest, summary: CacheSummary, kept: Files) -> None:
    """The cache is whole, says what the teacher says, and has the files of before as they were."""
    files = committed(request)
    assert len(files) == SHARDS
    assert {name: files[name] for name in kept} == kept
    torch.set_num_threads(1)
    reader = open_cache(summary.uri, manifest_sha=summary.manifest, scratch=Path(request.folder) / "scratch")
    data = load_training(request.data)
    assert isinstance(request.network, KeptNetwork)
    assert request.network.model is not None
    fast = request.network.model.with_overrides(arguments={"seconds": 0.0})
    teacher = load_teacher(request.network.with_overrides(model=fast), data)
    proof = prove_alignment(reader, data, teacher, request.views, request.view_seed, banks=request.banks)
    assert proof.pairs == 64


def kill_actor() -> None:
    """SIGKILL for the process of the only teacher."""
    (teacher,) = [actor for actor in living_actors() if "TeacherWorker" in actor["ActorClassName"]]
    assert teacher["Pid"]
    os.kill(teacher["Pid"], signal.SIGKILL)


def is_teacher(actor: object) -> bool:
    return "TeacherWorker" in str(getattr(actor, "class_name", ""))


def build_and(request: CacheRequest, break_something: Callable[[], None]) -> tuple[CacheSummary, Files]:
    """Build in this session, break something when some shards are there; the summary, and those shards."""
    kept: Files = {}

    def act() -> None:
        wait_until(lambda: len(committed(request)) >= ENOUGH, "the first shards")
        kept.update(committed(request))
        assert len(kept) < SHARDS - 2, "too late to matter"
        break_something()

    with meanwhile(act):
        summary = build_cache(request, progress=lambda *_: None)
    return summary, kept


def test_a_builder_that_is_killed_leaves_its_shards_to_the_next(tmp_path: Path) -> None:
    request = request_in(tmp_path)
    first = start_builder(request)
    wait_until(lambda: len(committed(request)) >= ENOUGH, "the first shards")
    os.kill(first.pid, signal.SIGKILL)
    first.communicate(timeout=60)
    kept = committed(request)
    assert ENOUGH <= len(kept) < SHARDS
    summary = summary_of(start_builder(request))
    assert summary.reused >= len(kept)
    assert summary.computed == SHARDS - summary.reused > 0
    assert_is_right(request, summary, kept)


def test_two_builders_of_one_cache_share_what_each_commits(tmp_path: Path) -> None:
    request = request_in(tmp_path)
    both = [start_builder(request) for _ in range(2)]
    summaries = [summary_of(builder) for builder in both]
    assert sum(summary.computed for summary in summaries) == SHARDS
    assert summaries[0].manifest == summaries[1].manifest
    assert_is_right(request, summaries[0], {})


def test_a_teacher_that_is_killed_is_replaced_and_its_shards_stay(tmp_path: Path) -> None:
    request = request_in(tmp_path)
    with connect("local", cpus=2):
        summary, kept = build_and(request, kill_actor)
    assert_is_right(request, summary, kept)


def test_a_lost_node_takes_no_shard_with_it(tmp_path: Path) -> None:
    request = request_in(tmp_path).with_overrides(cpus_per_actor=1.0)
    with three_nodes() as nodes:

        def lose_the_node() -> None:
            (teacher,) = filter(is_teacher, list_actors(filters=[("state", "=", "ALIVE")], detail=True))
            (node,) = [node for node in nodes.worker_nodes if node.node_id == teacher.node_id]
            nodes.remove_node(node, allow_graceful=False)

        summary, kept = build_and(request, lose_the_node)
    assert_is_right(request, summary, kept)
