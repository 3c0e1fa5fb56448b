"""What a training step costs with the teacher's answers from the cache, and with the teacher beside it.

The steps are those of `trainables.training.loop.train`, on the same images in the same order. The loop asks
`should_stop` before each step, so the time between two questions is a whole step: gathering and normalising
the batch, forward, loss, backward, optimiser, running means.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from tests.benchmarks.figures import Bound, Figure
from tests.benchmarks.surroundings import surroundings
from trainables.cache.format.identity import make_identity
from trainables.cache.format.planning import claim_folder, plan_shards, publish, together
from trainables.cache.format.records import Origin
from trainables.cache.format.storage import open_place
from trainables.cache.node.reader import CacheReader, open_cache
from trainables.config import (
    BankConfig,
    CeConfig,
    CropFlipStep,
    KdConfig,
    ModelConfig,
    ModelName,
    Precision,
    TrainingConfig,
    ViewsConfig,
    digest_of,
)
from trainables.data import ImageSplit, TrainingData
from trainables.data.splits import split_facts
from trainables.models import build_model
from trainables.models.features import FeatureTap, Tapped, untapped
from trainables.signals import TeacherSignal
from trainables.teacher.live import LiveTeacher
from trainables.teacher.loading import teacher_fingerprint
from trainables.teacher.shard_producer import ShardProducer
from trainables.tensors import memory_format
from trainables.training.course import Course
from trainables.training.loop import train
from trainables.training.workbench import Workbench

# B = samples in the batch, C = classes

KD_OVER_CE: Final = Bound(1.05)
FEATURE_TAP: Final = Bound(1.01)

# The sizes of the shipped experiment fashion_mnist, but for the batch; what the pixels show costs no time.
CLASSES: Final = 10
SIDE: Final = 28
BATCH: Final = 64
N_TRAIN: Final = 4096
STUDENT: Final = ModelConfig(name=ModelName.RESNET8, width=16)
TEACHER: Final = ModelConfig(name=ModelName.RESNET20, width=32)
EMBEDDED: Final[Mapping[str, tuple[str, ...]]] = {"weak": ("embedding",), "strong": ("embedding",)}
VIEWS: Final = ViewsConfig(weak=BankConfig(recipe=(CropFlipStep(op="crop_flip", padding=2),), views=1))
VIEW_SEED: Final = 7
# A course's first step also makes the optimiser's buffers.
STEPS_DROPPED: Final = 1
STEPS_KEPT: Final = 4
CPU: Final = torch.device("cpu")


def kd_step_over_ce(rounds: int = 50) -> Figure:
    """Median time of a step with KD from the cache, over that of a step with cross-entropy alone."""
    data, teacher = random_data(), network(TEACHER)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        cache = cache_of(Path(folder), data, teacher, VIEWS)
        workbench = Workbench(data, VIEWS, view_seed=VIEW_SEED, device=CPU, cache=cache)
        return _over_ce(
            workbench, "KD, the teacher's logits gathered from a cache of fp16", rounds, KD_OVER_CE
        )


def online_step_over_ce(rounds: int = 25) -> Figure:
    """The same with the teacher run on each batch instead of the cache; for comparison."""
    workbench = _OnlineWorkbench(random_data(), network(TEACHER))
    teacher = f"KD, teacher {TEACHER.name} of width {TEACHER.width} run on the same batch in inference mode"
    return _over_ce(workbench, teacher, rounds, None)


def feature_tap_cost(rounds: int = 25) -> Figure:
    """Time of a step of CE of a student whose features nobody reads, over one without a tap just before."""
    torch.set_num_threads(1)
    student = network(STUDENT)  # one for both: where its weights lie in memory costs more than listeners
    names = ("stem", "stage1", "stage2", "stage3", "embedding")
    tap = FeatureTap(student, names, n_classes=CLASSES, input_shape=(1, SIDE, SIDE), device=CPU)
    workbench = Workbench(random_data(), VIEWS, view_seed=VIEW_SEED, device=CPU)
    blocks = [
        block for number in range(rounds) for block in _tapped_in_turns(student, tap, workbench, number)
    ]
    tapped_s, plain_s = (statistics.median(times) for times in zip(*blocks, strict=True))
    how = (
        f"median over {len(blocks)} blocks of four training steps with cross-entropy alone, of a student "
        f"whose {', '.join(names)} are listened for and not read in the middle two (median of both "
        f"{1000 * tapped_s:.2f} ms) over the other two ({1000 * plain_s:.2f} ms), in one process with 1 "
        f"thread, student {STUDENT.name} of width {STUDENT.width}, fp32, batch {BATCH} of {SIDE}x{SIDE} grey "
        f"images, {CLASSES} classes; {surroundings('torch')}"
    )
    return Figure(statistics.median(one / other for one, other in blocks), "x", how, FEATURE_TAP)


def _tapped_in_turns(
    student: nn.Module, tap: FeatureTap, workbench: Workbench, seed: int
) -> list[tuple[float, float]]:
    """Seconds of two steps with listeners and of two without, by block: plain, tapped, tapped, plain.

    Neighbours in one course: from one course to another a step changes by more than listeners cost.
    """
    times_s: list[float] = []
    began = 0.0

    def enough() -> bool:
        nonlocal began
        times_s.append(time.perf_counter() - began)
        untapped(student)
        if len(times_s) % 4 in (2, 3):
            Tapped(student, tap)
        began = time.perf_counter()
        return len(times_s) > 4 * STEPS_KEPT + STEPS_DROPPED * 4

    train(
        Course(untapped(student), CeConfig(), recipe(), seed), workbench, on_epoch=never, should_stop=enough
    )
    untapped(student)
    # The first time is that of no step, and the first block also makes the optimiser's buffers.
    kept = times_s[1 + 4 * STEPS_DROPPED :]
    return [(kept[at + 1] + kept[at + 2], kept[at] + kept[at + 3]) for at in range(0, len(kept) - 3, 4)]


class _OnlineWorkbench(Workbench):
    """Asks a live teacher about the batch that the student has just been given."""

    def __init__(self, data: TrainingData, teacher: nn.Module) -> None:
        super().__init__(data, VIEWS, view_seed=VIEW_SEED, device=CPU)
        self._layout = memory_format(teacher)
        self._teacher = teacher.to(memory_format=self._layout).eval()  # type: ignore[call-overload]
        self._shown: dict[str, Tensor] = {}

    def images(self, bank: str, epoch: int, rows_B: Tensor) -> Tensor:
        self._shown[bank] = super().images(bank, epoch, rows_B)
        return self._shown[bank]

    def teacher(self, bank: str, epoch: int, rows_B: Tensor, *_: object, **__: object) -> TeacherSignal:
        with torch.inference_mode():
            logits_BC = self._teacher(self._shown[bank].contiguous(memory_format=self._layout))
            confidence_B = logits_BC.softmax(dim=-1).amax(dim=-1)
        # Autograd refuses to keep tensors of inference mode for its backward pass; a copy is allowed.
        return TeacherSignal(logits_BC.clone(), confidence_B.clone())


def _over_ce(workbench: Workbench, what: str, rounds: int, bound: Bound | None) -> Figure:
    torch.set_num_threads(1)
    models = {"ce": network(STUDENT), "kd": network(STUDENT)}
    courses = {
        "ce": lambda seed: Course(models["ce"], CeConfig(), recipe(), seed),
        "kd": lambda seed: Course(models["kd"], KdConfig(), recipe(), seed),
    }
    times_s = interleaved(workbench, courses, rounds)
    ce_s, kd_s = (statistics.median(times_s[name]) for name in ("ce", "kd"))
    how = (
        f"median of {len(times_s['kd'])} training steps with {what} ({1000 * kd_s:.2f} ms), over as many "
        f"with cross-entropy alone ({1000 * ce_s:.2f} ms), taken in turns of {STEPS_KEPT} in one process "
        f"with 1 thread, student {STUDENT.name} of width {STUDENT.width}, fp32, batch {BATCH} of "
        f"{SIDE}x{SIDE} grey images, {CLASSES} classes; {surroundings('torch')}"
    )
    return Figure(kd_s / ce_s, "x", how, bound)


def step_times_s(course: Course, bench: Workbench) -> list[float]:
    """Seconds of a few steps of a course, which is then stopped."""
    asked_at: list[float] = []

    def enough() -> bool:
        asked_at.append(time.perf_counter())
        return len(asked_at) > STEPS_DROPPED + STEPS_KEPT

    train(course, bench, on_epoch=never, should_stop=enough)
    kept = asked_at[STEPS_DROPPED:]
    return [after - before for before, after in pairwise(kept)]


def interleaved(
    workbench: Workbench,
    courses: Mapping[str, Callable[[int], Course]],
    rounds: int,
    *,
    timed: Callable[[Course, Workbench], list[float]] = step_times_s,
) -> dict[str, list[float]]:
    """Seconds of steps by course, each made anew from a seed a round.

    Turns change places each round, so that drift hits all alike.
    """
    times_s: dict[str, list[float]] = {name: [] for name in courses}
    for number in range(rounds + 1):
        order = list(courses) if number % 2 else list(courses)[::-1]
        for name in order:
            steps_s = timed(courses[name](number), workbench)
            if number > 0:  # the first round also renders the views and loads the teacher's answers
                times_s[name] += steps_s
    return times_s


def never(epoch: int, _metrics: Mapping[str, float]) -> None:
    """A listener of a course that is stopped before its first epoch ends."""
    raise RuntimeError(f"epoch {epoch} came to its end; it has too few steps for this measurement")


def recipe() -> TrainingConfig:
    """One epoch in batches of the benchmark's size."""
    return TrainingConfig(epochs=1, batch_size=BATCH)


def network(config: ModelConfig) -> nn.Module:
    """A network with the same fresh weights each time."""
    torch.manual_seed(0)
    return build_model(config, n_classes=CLASSES, in_channels=1)


def random_data() -> TrainingData:
    """Noise of the benchmark's sizes, as training and as selection split."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (N_TRAIN, 1, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, CLASSES, (N_TRAIN,), generator=generator)
    split = ImageSplit(images, labels, torch.arange(N_TRAIN))
    classes = tuple(str(number) for number in range(CLASSES))
    return TrainingData(split, split, classes, (0.5,), (0.25,), digest_of("random images"))


def cache_of(
    folder: Path,
    data: TrainingData,
    teacher: nn.Module,
    views: ViewsConfig,
    *,
    features: Mapping[str, tuple[str, ...]] | None = None,
    banks: tuple[str, ...] = ("weak", "strong"),
    precision: Precision = Precision.FP16,
    device: torch.device = CPU,
) -> CacheReader:
    """A cache as a run has it, of all views of the banks, built here without Ray."""
    wanted_banks = {name: views.bank(name) for name in banks}
    facts = split_facts(data)
    digest = teacher_fingerprint(TEACHER, teacher)
    place = open_place(str(folder / "cache"))
    wanted = Origin(
        identity=make_identity(digest, facts, seed=VIEW_SEED, precision=precision),
        n_rows=facts.n_train,
        classes=facts.classes,
        rows_per_shard=facts.n_train,
        recipes={name: bank.recipe for name, bank in wanted_banks.items()},
        features=dict(features or {}),
    )
    origin = claim_folder(place, wanted)
    live = LiveTeacher(teacher, data, seed=VIEW_SEED, batch_size=512, device=device)
    producer = ShardProducer(place, origin, live, data)
    for shards in together(plan_shards(place, origin, wanted_banks).missing):
        producer.produce_together(shards)
    manifest = publish(place, plan_shards(place, origin, wanted_banks), {"torch": version("torch")})
    return open_cache(place.uri, manifest_sha=manifest, scratch=folder / "scratch")
