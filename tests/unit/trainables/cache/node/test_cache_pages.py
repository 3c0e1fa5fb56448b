"""Processes of a node that read the same cache hold one copy of it in memory."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from tests.unit.trainables.cache.tiny_caches import TinyCache, random_data
from trainables.data.splits import split_facts

WIDTH = 32_768
N_ROWS = 160

# Without torch, which alone takes seconds to import: gathers are numpy's `take` from these arrays.
READER = """
import json, sys
from pathlib import Path
import numpy as np
from trainables.cache.node.conversion import open_bank, open_feature
from trainables.cache.format.manifest import read_manifest
from trainables.cache.format.storage import open_place

def memory(*kinds):
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    return sum(int(line[1]) * 1024 for line in lines if line[0].rstrip(":") in kinds)

uri, sha256, scratch = sys.argv[1:]
place = open_place(uri)
manifest, _ = read_manifest(place, sha256)
ids = open_bank(place, manifest, "weak", Path(scratch)).ids
embedding = open_feature(place, manifest, "weak", "embedding", Path(scratch), ids)[0]
embedding.take(np.arange(4), axis=0)
own, shared = memory("RssAnon"), memory("RssFile", "RssShmem")
for first in range(0, manifest.n_rows, 4):
    embedding.take(np.arange(first, first + 4), axis=0)
print(json.dumps([memory("RssAnon") - own, memory("RssFile", "RssShmem") - shared]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kinds of memory stand in Linux's /proc")
def test_a_second_process_adds_no_memory_of_its_own_for_what_it_reads(tiny: TinyCache) -> None:
    data = random_data(N_ROWS)
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, WIDTH), nn.Linear(WIDTH, 5))
    kitchen = tiny.but(
        data=data,
        facts=split_facts(data),
        teacher=teacher,
        views=tiny.views.with_overrides(weak=tiny.views.weak.with_overrides(views=1)),
        rows_per_shard=N_ROWS,
        features={"weak": ("embedding",)},
    )
    kitchen.build(("weak",))
    first = kitchen.open("copy")
    assert "embedding" in first.signal("weak", 0, torch.arange(N_ROWS), ("embedding",)).features
    command = [sys.executable, "-c", READER, kitchen.uri, first.manifest_sha, str(kitchen.folder / "copy")]
    told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    own_bytes, shared_bytes = json.loads(told.stdout)
    view_bytes = 2 * WIDTH * N_ROWS
    assert shared_bytes > 0.9 * view_bytes  # it has read all of the view, and
    assert own_bytes < 0.2 * view_bytes  # has no copy of it: what grew are its batches
