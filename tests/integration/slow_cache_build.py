"""A cache that takes its time to build; run as a module, one builder of it in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch

from cluster.session import connect
from trainables.config import (
    BankConfig,
    CacheConfig,
    CropFlipStep,
    DataConfig,
    DataName,
    KeptNetwork,
    ModelConfig,
    ViewsConfig,
)
from trainables.data import load_training
from trainables.data.splits import split_facts
from trainables.models import build_model
from trainables.models.weights import save_weights
from trainables.teacher.cache_build import CacheSummary, build_cache
from trainables.teacher.cache_request import CacheRequest
from trainables.teacher.loading import teacher_fingerprint

REPOSITORY = Path(__file__).parents[2]
SHARDS = 20
ROWS = 20
SECONDS_A_SHARD = 0.4


def request_in(folder: Path) -> CacheRequest:
    """One bank of one view in 20 shards, each of one teacher batch."""
    data_config = DataConfig(name=DataName.DIGITS, train_limit=SHARDS * ROWS)
    teacher = ModelConfig(
        factory="tests.integration.fault_students:ponderous", arguments={"seconds": SECONDS_A_SHARD}
    )
    data = load_training(data_config)
    torch.manual_seed(0)
    model = build_model(teacher, n_classes=10, in_channels=1)
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(model, folder / "teacher.safetensors", {})
    return CacheRequest(
        data=data_config,
        facts=split_facts(data),
        teacher=KeptNetwork(model=teacher, weights=str(folder / "teacher.safetensors")),
        teacher_digest=teacher_fingerprint(teacher, model),
        views=ViewsConfig(weak=BankConfig(recipe=(CropFlipStep(op="crop_flip", padding=1),))),
        banks=("weak",),
        view_seed=3,
        cache=CacheConfig(rows_per_shard=ROWS, batch_size=ROWS),
        folder=str(folder / "caches"),
    )


def committed(request: CacheRequest) -> dict[str, tuple[int, int]]:
    """The files that count, by name, with inode and time: one that is written again has others."""
    place = Path(request.uri)
    names = [json.loads(path.read_bytes())["file"] for path in place.glob("_commits/*.json")]
    facts = {name: (place / name).stat() for name in names}
    return {name: (fact.st_ino, fact.st_mtime_ns) for name, fact in facts.items()}


def start_builder(request: CacheRequest) -> subprocess.Popen[str]:
    """`build_cache` in a process with a Ray session of its own; prints the summary as JSON."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.integration.slow_cache_build", request.model_dump_json()],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def summary_of(builder: subprocess.Popen[str], timeout_s: float = 180.0) -> CacheSummary:
    out, err = builder.communicate(timeout=timeout_s)
    assert builder.returncode == 0, err
    return CacheSummary.model_validate_json(out.splitlines()[-1])


if __name__ == "__main__":
    with connect("local", cpus=2):
        built = build_cache(CacheRequest.model_validate_json(sys.argv[1]), progress=lambda *_: None)
    sys.stdout.write(built.model_dump_json() + "\n")
