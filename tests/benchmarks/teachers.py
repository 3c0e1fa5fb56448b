"""What the teacher costs: its pass over the data, and its answers in every trial of a search."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from cluster.session import connect
from orchestrator.config.schema import ExperimentConfig
from search_spaces.space import SpaceConfig
from tests.benchmarks.figures import Bound, Figure
from tests.benchmarks.slot_searches import scratch_folder, search_of
from tests.benchmarks.surroundings import surroundings
from trainables.config import (
    CacheConfig,
    DataConfig,
    KeptNetwork,
    ModelConfig,
    OnlineSpec,
    Precision,
    ViewsConfig,
)
from trainables.data import TrainingData, load_training
from trainables.data.splits import split_facts
from trainables.models import build_model
from trainables.models.weights import save_weights
from trainables.teacher.cache_build import build_cache
from trainables.teacher.cache_request import CacheRequest
from trainables.teacher.loading import teacher_fingerprint
from trainables.tensors import memory_format

BUILD_OVER_TEACHER: Final = Bound(0.90, at_least=True)
ONLINE_OVER_CACHED: Final = Bound(3, at_least=True)

SIDE: Final = 28
CLASSES: Final = 10
BATCH: Final = 512
STUDENT_BATCH: Final = 64
SHARD_BATCHES: Final = 4
TRIALS: Final = 16
EPOCHS: Final = 3
SLOTS: Final = 2
TEACHER: Final = ModelConfig.from_plain({"name": "resnet20", "width": 24})
# A pass of this one takes some ten times as long as a training step of the student, see `how` of the figure.
DEEP_TEACHER: Final = ModelConfig.from_plain({"name": "resnet56", "width": 24})
STUDENT: Final = ModelConfig.from_plain({"name": "resnet8", "width": 8})
SPACE: Final = SpaceConfig.from_plain(
    {
        "name": "benchmark",
        "objectives": {"kd": {}},
        "training": {"lr": {"loguniform": [1e-3, 1e-1]}},
        "search": {"algorithm": "random", "points_to_evaluate": []},
        "scheduler": {"name": "fifo"},
    }
)


def noise(split: str, n_train: int) -> TensorDataset:
    """Grey 28x28 noise; what the pixels show costs no time."""
    generator = torch.Generator().manual_seed({"train": 0, "test": 1}[split])
    n = n_train if split == "train" else 64
    images = torch.randint(0, 256, (n, 1, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    return TensorDataset(images, torch.arange(n) % CLASSES)


def cache_build_over_teacher(shards: int = 10) -> Figure:
    """Images a second of the cache stage, once its actor is up, over those of the network alone."""
    torch.set_num_threads(1)
    with scratch_folder() as folder:
        stage = _Stage.in_folder(folder, rows=shards * SHARD_BATCHES * BATCH)
        before = stage.bare_images_per_s()
        with connect("local", cpus=2):
            built = stage.built_images_per_s()
        after = stage.bare_images_per_s()
    bare = statistics.fmean((before, after))
    how = (
        f"images a second from the first of {shards} shards to the last, one actor with 1 thread that "
        f"renders crops, normalises, asks the teacher ({_named(TEACHER)}) in batches of {BATCH} and writes "
        f"Parquet ({built:.0f}), over those of the teacher alone on such batches in memory, 1 thread, the "
        f"mean of the medians before and after ({before:.0f}, {after:.0f}); {SIDE}x{SIDE} grey images, "
        f"fp32; {surroundings('ray', 'torch', 'pyarrow')}"
    )
    return Figure(built / bare, "x", how, BUILD_OVER_TEACHER)


def search_online_over_cached(samples: int = 1024) -> Figure:
    """Seconds of a search whose trials each ask the teacher, over those of one cache and a search from it."""
    with scratch_folder() as folder, connect("local", cpus=SLOTS):
        stage = _Stage.in_folder(folder, rows=samples, teacher=DEEP_TEACHER)
        pass_ms = 1e3 * _forward_s(stage.teacher, SIDE) / BATCH
        step_ms = 1e3 * _step_s(_network(STUDENT)) / STUDENT_BATCH
        with search_of(_experiment(stage.request), folder) as search:
            search.start_slots()
            online = OnlineSpec(network=stage.request.network, batch_size=BATCH)
            began = time.monotonic()
            cache = build_cache(
                stage.request.with_overrides(actors=SLOTS, cache={"precision": "fp16"}),
                progress=lambda *_: None,
            )
            build_s = time.monotonic() - began
            teacher = {"cache_uri": cache.uri, "cache_manifest": cache.manifest}
            cached_s = search.run(SPACE, name="cached", teacher=teacher)
            online_s = search.run(SPACE, name="online", teacher={"online": online.plain()})
    how = (
        f"{TRIALS} trials of {EPOCHS} epochs over {samples} images, KD, {SLOTS} warm slots of 1 thread: "
        f"the teacher in each trial ({online_s:.0f} s), over the cache of {EPOCHS} views, built by {SLOTS} "
        f"actors ({build_s:.0f} s with their start), and the search from it ({cached_s:.0f} s); a pass of "
        f"the teacher, {_named(DEEP_TEACHER)}, takes {pass_ms:.1f} ms an image, a training step of the "
        f"student, {_named(STUDENT)}, {step_ms:.1f} ms; "
        f"{surroundings('ray', 'torch')}"
    )
    return Figure(online_s / (build_s + cached_s), "x", how, ONLINE_OVER_CACHED)


@dataclass(frozen=True)
class _Stage:
    """A teacher with fresh weights in a file, and what the cache stage is asked for."""

    request: CacheRequest
    teacher: nn.Module
    data: TrainingData

    @classmethod
    def in_folder(cls, folder: Path, *, rows: int, teacher: ModelConfig = TEACHER) -> _Stage:
        config = DataConfig.from_plain(
            {
                "factory": "tests.benchmarks.teachers:noise",
                "arguments": {"n_train": rows + 64},
                "selection_fraction": 64 / (rows + 64),
            }
        )
        data, network = load_training(config), _network(teacher)
        weights = folder / "teacher.safetensors"
        save_weights(network, weights, {})
        recipe = [{"op": "crop_flip", "padding": 2}]
        request = CacheRequest(
            data=config,
            facts=split_facts(data),
            teacher=KeptNetwork(model=teacher, weights=str(weights)),
            teacher_digest=teacher_fingerprint(teacher, network),
            views=ViewsConfig.from_plain({"weak": {"recipe": recipe, "views": EPOCHS}}),
            banks=("weak",),
            view_seed=0,
            cache=CacheConfig(
                batch_size=BATCH, rows_per_shard=SHARD_BATCHES * BATCH, precision=Precision.FP16
            ),
            folder=str(folder / "caches"),
        )
        return cls(request, network, data)

    def built_images_per_s(self) -> float:
        """Of the cache stage, without the start of its actor, for one view."""
        seen: list[tuple[int, float]] = []
        views = self.request.views.with_overrides(weak=self.request.views.weak.with_overrides(views=1))
        build_cache(
            self.request.with_overrides(views=views),
            progress=lambda done, _total, seconds: seen.append((done, seconds)),
        )
        (first, began), (last, ended) = next(entry for entry in seen if entry[0] > 0), seen[-1]
        return (last - first) / (ended - began)

    def bare_images_per_s(self) -> float:
        return BATCH / _forward_s(self.teacher, SIDE)


def _experiment(request: CacheRequest) -> ExperimentConfig:
    return ExperimentConfig.from_plain(
        {
            "name": "online",
            "data": request.data.plain(),
            "teacher": {"model": DEEP_TEACHER.plain()},
            "student": STUDENT.plain(),
            "views": request.views.plain(),
            "training": {"epochs": EPOCHS, "batch_size": STUDENT_BATCH, "precision": "fp32"},
            "space": "benchmark",
            "budget": {"trials": TRIALS},
            "cluster": {"slots": SLOTS, "gpus_per_worker": 0, "students_per_slot": 1},
        }
    )


def _named(config: ModelConfig) -> str:
    return f"{config.name} of width {config.width}"


def _network(config: ModelConfig) -> nn.Module:
    torch.manual_seed(0)
    return build_model(config, n_classes=CLASSES, in_channels=1).eval()


def _step_s(network: nn.Module, rounds: int = 9) -> float:
    """Median seconds of a training step of one batch by cross-entropy with one thread."""
    torch.set_num_threads(1)
    layout = memory_format(network)
    network = network.to(memory_format=layout).train()  # type: ignore[call-overload]
    images = torch.rand(STUDENT_BATCH, 1, SIDE, SIDE).contiguous(memory_format=layout)
    labels = torch.arange(STUDENT_BATCH) % CLASSES
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    times_s: list[float] = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        times_s.append(time.perf_counter() - began)
    return statistics.median(times_s[1:])


def _forward_s(network: nn.Module, side: int, rounds: int = 9) -> float:
    """Median seconds of a pass over one batch, in inference mode with one thread."""
    torch.set_num_threads(1)
    layout = memory_format(network)
    network = network.to(memory_format=layout)  # type: ignore[call-overload]
    images: Tensor = torch.rand(BATCH, 1, side, side).contiguous(memory_format=layout)
    times_s: list[float] = []
    with torch.inference_mode():
        for _ in range(rounds + 1):
            began = time.perf_counter()
            network(images)
            times_s.append(time.perf_counter() - began)
    return statistics.median(times_s[1:])
