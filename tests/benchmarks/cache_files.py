"""What a cache of many classes takes: disk, memory while it is built, time to open and to gather from it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Final

import torch
from torch import nn

from tests.benchmarks.figures import Bound, Figure
from tests.benchmarks.slot_searches import scratch_folder
from tests.benchmarks.surroundings import surroundings
from trainables.cache.format.identity import make_identity
from trainables.cache.format.manifest import Manifest, read_manifest
from trainables.cache.format.planning import claim_folder, plan_shards, publish, together
from trainables.cache.format.records import Origin
from trainables.cache.format.storage import open_place
from trainables.cache.node.reader import open_cache
from trainables.config import BankConfig, CacheConfig, ViewsConfig, digest_of
from trainables.data import ImageSplit, TrainingData
from trainables.data.splits import split_facts
from trainables.teacher.live import LiveTeacher
from trainables.teacher.shard_producer import ShardProducer

# N = training samples, C = classes, B = rows in a batch

BYTES_PER_ROW: Final = Bound(2060)
GATHER: Final = Bound(0.7, at_least=True)
OPEN_MS: Final = Bound(50)
MEMORY_GB: Final = Bound(1.5)

N_TRAIN: Final = 200_000
CLASSES: Final = 1000
SIDE: Final = 4
SEED: Final = 0
CONFIG: Final = CacheConfig()
CPU: Final = torch.device("cpu")
BATCH: Final = 512
GATHERED_ROWS: Final = 50_000
OPENED_VIEWS: Final = 32
ROUNDS: Final = 510
DROPPED: Final = 10
"""First rounds, which warm up whatever there is."""
GIGABYTE: Final = 1e9


def cache_bytes_per_row_1000() -> Figure:
    """Bytes on disk of one answer of 1000 classes in the default precision."""
    torch.set_num_threads(1)
    with scratch_folder() as folder:
        manifest = _build(folder, _data(N_TRAIN, CLASSES), ViewsConfig())
        files = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    how = (
        f"all files of a cache of {manifest.rows:,} x {CLASSES} synthetic logits in "
        f"{CONFIG.precision.value}, {len(manifest.shards)} shards and their records, over its rows; "
        f"{surroundings('pyarrow')}"
    )
    return Figure(files / manifest.rows, "B", how, BYTES_PER_ROW)


def cache_build_memory_gb() -> Figure:
    """Memory that building takes above what the teacher takes alone, at the peak."""
    torch.set_num_threads(1)
    data, teacher = _data(N_TRAIN, CLASSES), _teacher(CLASSES)
    live = LiveTeacher(teacher, data, seed=SEED, batch_size=CONFIG.batch_size, device=CPU)
    with scratch_folder() as folder:
        _build(folder / "small", _data(BATCH, CLASSES), ViewsConfig())  # so that all libraries are loaded
        _forget_peak()
        for rows_B in torch.split(torch.arange(N_TRAIN), CONFIG.batch_size):
            live.logits((), 0, rows_B)
        alone_bytes = _peak_bytes()
        _forget_peak()
        _build(folder / "large", data, ViewsConfig())
        peak_bytes = _peak_bytes()
    how = (
        f"peak resident memory of the process that builds {N_TRAIN:,} x {CLASSES} logits in shards of "
        f"{CONFIG.rows_per_shard:,} rows ({peak_bytes / GIGABYTE:.2f} GB), less the peak while the teacher "
        f"alone answers for the same batches of {CONFIG.batch_size} ({alone_bytes / GIGABYTE:.2f} GB); "
        f"{surroundings('torch', 'pyarrow')}"
    )
    return Figure((peak_bytes - alone_bytes) / GIGABYTE, "GB", how, MEMORY_GB)


def cache_gather_over_index_select() -> Figure:
    """Speed of a batch's gather from the memory map over that from a tensor in memory."""
    torch.set_num_threads(1)
    with scratch_folder() as folder:
        data = _data(GATHERED_ROWS, CLASSES)
        _build(folder / "cache", data, ViewsConfig())
        reader = open_cache(str(folder / "cache"), scratch=folder / "scratch")
        resident_NC = reader.whole_view("weak", 0).logits_BC
        generator = torch.Generator().manual_seed(SEED)
        batches = iter(torch.randint(GATHERED_ROWS, (4 * ROUNDS, BATCH), generator=generator))
        mapped_s, resident_s, signal_s, widened_s = _medians_s(
            lambda: reader.values("weak", 0, next(batches)),
            lambda: resident_NC.index_select(0, next(batches)),
            lambda: reader.signal("weak", 0, next(batches)),
            lambda: resident_NC.index_select(0, next(batches)).float(),
            rounds=ROUNDS,
        )
    how = (
        f"{BATCH} random rows of {GATHERED_ROWS:,} x {CLASSES} in {CONFIG.precision.value}, 1 thread, "
        f"medians of {ROUNDS - DROPPED} in turns: `CacheReader.values` from a warm memory map, bounds check "
        f"included ({1e3 * mapped_s:.3f} ms), beside `index_select` on a resident tensor "
        f"({1e3 * resident_s:.3f} ms); "
        f"as float32, and with confidences, {1e3 * signal_s:.3f} ms beside {1e3 * widened_s:.3f} ms; "
        f"{surroundings('torch', 'numpy')}"
    )
    return Figure(resident_s / mapped_s, "x", how, GATHER)


def cache_open_second_ms() -> Figure:
    """Time to open a cache that another process of the node has converted already."""
    torch.set_num_threads(1)
    views = ViewsConfig(weak=BankConfig(views=OPENED_VIEWS))
    with scratch_folder() as folder:
        _build(folder / "cache", _data(2048, 100), views)
        uri, scratch = str(folder / "cache"), folder / "scratch"
        first = open_cache(uri, scratch=scratch)
        first.arrays("weak")
        rows_B = torch.arange(BATCH)

        def open_and_gather() -> None:
            open_cache(uri, manifest_sha=first.manifest_sha, scratch=scratch).signal("weak", 0, rows_B)

        (opened_s,) = _medians_s(open_and_gather, rounds=61)
    how = (
        f"from `open_cache` to the first {BATCH} answers, where the node has a copy: {OPENED_VIEWS} views "
        f"of 2,048 samples, 100 classes; median of 51 in one process; {surroundings('torch', 'pydantic')}"
    )
    return Figure(1e3 * opened_s, "ms", how, OPEN_MS)


def _medians_s(*actions: Callable[[], object], rounds: int) -> list[float]:
    """Median seconds of each action; they take turns, and change places every round."""
    times_s: list[list[float]] = [[] for _ in actions]
    order = list(range(len(actions)))
    for number in range(rounds):
        for index in order if number % 2 else reversed(order):
            began = time.perf_counter()
            actions[index]()
            if number >= DROPPED:
                times_s[index].append(time.perf_counter() - began)
    return [statistics.median(times) for times in times_s]


def _build(folder: Path, data: TrainingData, views: ViewsConfig) -> Manifest:
    """A cache as a run has it, built in this process."""
    teacher = _teacher(len(data.classes))
    facts = split_facts(data)
    place = open_place(str(folder))
    wanted = Origin(
        identity=make_identity(digest_of("benchmark"), facts, seed=SEED, precision=CONFIG.precision),
        n_rows=facts.n_train,
        classes=facts.classes,
        rows_per_shard=CONFIG.rows_per_shard,
        recipes={"weak": views.weak.recipe},
    )
    origin, banks = claim_folder(place, wanted), {"weak": views.weak}
    live = LiveTeacher(teacher, data, seed=SEED, batch_size=CONFIG.batch_size, device=CPU)
    producer = ShardProducer(place, origin, live, data)
    for group in together(plan_shards(place, origin, banks).missing):
        producer.produce_together(group)
    sha256 = publish(place, plan_shards(place, origin, banks), {"torch": version("torch")})
    return read_manifest(place, sha256)[0]


def _teacher(n_classes: int) -> nn.Module:
    """So cheap that the cache is what is measured; its logits spread as those of a trained network."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        layer = nn.Linear(SIDE * SIDE, n_classes)
        nn.init.normal_(layer.weight)
        return nn.Sequential(nn.Flatten(), layer)


def _data(n_train: int, n_classes: int) -> TrainingData:
    """Noise of so few pixels that it takes no room beside the logits."""
    generator = torch.Generator().manual_seed(SEED)
    images = torch.randint(0, 256, (n_train, 1, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, n_classes, (n_train,), generator=generator)
    split = ImageSplit(images, labels, torch.arange(n_train))
    classes = tuple(str(number) for number in range(n_classes))
    return TrainingData(split, split, classes, (0.5,), (0.25,), digest_of("noise"))


def _forget_peak() -> None:
    """Start a new count of the largest resident memory (Linux: proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_bytes() -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM; this measurement needs Linux")
