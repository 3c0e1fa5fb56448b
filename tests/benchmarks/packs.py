"""What packs gain on a CPU: students trained as one, over the same students one after the other."""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import yaml

from orchestrator.config.loading import EXPERIMENTS_FOLDER, load_experiment
from orchestrator.records.events import StageEvent
from orchestrator.records.ledger import Ledger
from tests.benchmarks.figures import Bound, Figure
from tests.benchmarks.slot_searches import scratch_folder
from tests.benchmarks.steps import CPU, VIEW_SEED, cache_of, network, random_data
from tests.benchmarks.surroundings import surroundings
from tests.local_slot import LocalSlot
from trainables.config import (
    CeConfig,
    KdConfig,
    ModelConfig,
    ModelName,
    Role,
    TrainingConfig,
    TrialSpec,
    ViewsConfig,
    WorkbenchSpec,
)
from trainables.data import ImageSplit, TrainingData, load_training
from trainables.models import build_model
from trainables.slots.messages import TrainJob
from trainables.training.course import Course
from trainables.training.loop import steps_alone
from trainables.training.packs.measure import PackChoice, fastest
from trainables.training.packs.pack import Pack, Ticket
from trainables.training.workbench import Workbench

DIGITS_GAIN: Final = Bound(3.0, at_least=True)
NEVER_SLOWER: Final = Bound(0.97, at_least=True)
FINALISTS_GAIN: Final = Bound(2.0, at_least=True)
REFILL_STEPS: Final = Bound(5.0)
SHAPES: Final = ((1, 8), (1, 14), (1, 28), (3, 32), (3, 48))
"""Channels and side of the images."""
WIDTHS: Final = (4, 8, 16, 32)
BATCH: Final = 64


def packed_trials_gain_digits(alone: int = 8, packed: int = 64, rounds: int = 3) -> Figure:
    """Trials a minute of the digits search's student with KD from the cache, `auto` over one by one."""
    with _digits() as digits:
        digits.slot("auto").run(digits.job(10_000))  # measures
        choice = digits.choice()
        pairs = []
        for number in range(rounds):
            own_s = digits.seconds_of("1", range(1000 * number, 1000 * number + alone)) / alone
            first = 1000 * number + 500
            pairs.append((own_s, digits.seconds_of("auto", range(first, first + packed)) / packed))
    ratios = [own / other for own, other in pairs]
    own_s, other_s = (statistics.median(times) for times in zip(*pairs, strict=True))
    how = (
        f"median of {rounds} ratios ({min(ratios):.2f} to {max(ratios):.2f}) in turns, 1 thread: "
        f"seconds a trial of {alone} trials one by one ({own_s:.2f} s) over those of {packed} in a slot with "
        f"`students_per_slot: auto`, which chose {choice} ({other_s:.2f} s); the shipped digits' "
        f"student and recipe, KD with temperatures and weights of each trial's own; admission, evaluation "
        f"and kept files included, measuring not; {surroundings('torch')}"
    )
    return Figure(statistics.median(ratios), "x", how, DIGITS_GAIN)


def packed_trials_never_slower(rounds: int = 7) -> Figure:
    """Steps of students a second in what `auto` chooses, over one by one: the worst of twenty cells."""
    torch.set_num_threads(1)
    found: dict[str, tuple[PackChoice, float]] = {}
    for (channels, side), width in itertools.product(SHAPES, WIDTHS):
        bench, course = _cell(channels, side, width)
        choice = fastest(course, bench)
        gain = 1.0 if choice.form is None else _gain(course, bench, choice, rounds)
        found[f"{channels}x{side}x{side}, width {width}"] = (choice, gain)
    worst = min(found, key=lambda cell: found[cell][1])
    cells = "; ".join(f"{cell}: {choice}, {gain:.2f}" for cell, (choice, gain) in found.items())
    how = (
        f"the worst of {len(found)} cells ({worst}): steps of students a second with the lanes and form that "
        f"auto chose, over steps alone, medians of {rounds} ratios in turns in one process with 1 thread; "
        f"1.00 where auto trains alone; resnet8, cross-entropy, batch {BATCH}; {cells}; "
        f"{surroundings('torch')}"
    )
    return Figure(found[worst][1], "x", how, NEVER_SLOWER)


def packed_finalists_gain() -> Figure:
    """Wall time of the shipped demo's finalists and controls, one by one over packed; one run of each."""
    shipped = yaml.safe_load((EXPERIMENTS_FOLDER / "digits.yaml").read_text(encoding="utf-8"))
    seconds: dict[str, float] = {}
    with scratch_folder() as folder:
        for name, students in (("alone", 1), ("packed", "auto")):
            file = folder / f"{name}.yaml"
            file.write_text(yaml.safe_dump({**shipped, "cluster": {"students_per_slot": students}}))
            command = [sys.executable, "-m", "orchestrator", "run", str(file), "--out", str(folder / name)]
            subprocess.run(command, check=True, capture_output=True)
            stages = [s for s in Ledger(folder / name).events_of(StageEvent) if s.status == "finished"]
            seconds[name] = next(s.seconds or 0.0 for s in stages if s.stage == "finalists")
    how = (
        f"stage `finalists` of two runs of the shipped experiment digits, one after the other, 3 finalists "
        f"and their control with 12 seeds each: {seconds['alone']:.1f} s with students_per_slot 1, "
        f"{seconds['packed']:.1f} s with auto; 2 slots of one CPU; {surroundings('ray', 'torch')}"
    )
    return Figure(seconds["alone"] / seconds["packed"], "x", how, FINALISTS_GAIN)


def pack_refill_cost(trials: int = 24) -> Figure:
    """What the end of a lane's trial and the next one's start cost, in steps of the pack."""
    with _digits() as digits:
        digits.slot("auto").run(digits.job(10_000))
        lanes = digits.choice().lanes
        # Courses of one epoch against courses of two: what an epoch does not account for is the change.
        one_s = digits.seconds_of("auto", range(lanes), epochs=1)
        several_s = digits.seconds_of("auto", range(lanes, 2 * lanes), epochs=5)
        epoch_s = (several_s - one_s) / 4
        steps = digits.steps_of_an_epoch
    change_s = max(one_s - epoch_s, 0.0) / lanes
    step_s = epoch_s / steps
    how = (
        f"seconds that {lanes} trials in as many lanes take beside their epochs, for each "
        f"({1000 * change_s:.1f} ms: its student is built, joins, leaves, and is kept), over a step of the "
        f"full pack ({1000 * step_s:.1f} ms, evaluation included); courses of 1 and 5 epochs, digits, "
        f"1 thread; {surroundings('torch')}"
    )
    return Figure(change_s / step_s, "steps", how, REFILL_STEPS)


@dataclass
class _Digits:
    """The digits with a cache, and slots that train its students."""

    spec: WorkbenchSpec
    student: ModelConfig
    training: TrainingConfig
    slots: dict[str, LocalSlot]
    steps_of_an_epoch: int

    def slot(self, students: str) -> LocalSlot:
        """A slot that stays, so that data, views and answers are loaded."""
        wish: int | str = students if students == "auto" else int(students)
        return self.slots.setdefault(students, LocalSlot(wish))

    def job(self, number: int, **training: Any) -> TrainJob:
        objective = KdConfig(temperature=1.0 + number % 7, kd_weight=0.5 + number % 3, ce_weight=1.0)
        trial = TrialSpec(
            trial_id=f"kd-{number}",
            role=Role.SEARCH,
            objective=objective,
            student=self.student,
            training=self.training.with_overrides(**training),
            seed=number,
        )
        return TrainJob(workbench=self.spec, trial=trial)

    def choice(self) -> PackChoice:
        job = self.job(10_000)
        return self.slot("auto").warm.pack_choice(job.trial, job.workbench, "auto")

    def seconds_of(self, students: str, numbers: Sequence[int], **training: Any) -> float:
        slot, jobs = self.slot(students), [self.job(number, **training) for number in numbers]
        began = time.perf_counter()
        slot.run(*jobs)
        seconds = time.perf_counter() - began
        ends = [slot.told[job.job_id].end for job in jobs]
        if any(end.checkpoint is None for end in ends):
            raise RuntimeError(f"a trial failed: {[end.reason for end in ends]}")
        return seconds


@contextmanager
def _digits() -> Iterator[_Digits]:
    torch.set_num_threads(1)
    shipped = load_experiment("digits").config
    data = load_training(shipped.data)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        cache = cache_of(Path(folder), data, network(shipped.student.network), shipped.views, banks=("weak",))
        spec = WorkbenchSpec(
            data=shipped.data,
            views=shipped.views,
            view_seed=VIEW_SEED,
            cache_uri=cache.uri,
            cache_manifest=None,
            checkpoints=str(Path(folder) / "students"),
        )
        steps = len(data.train.ids) // shipped.training.batch_size
        yield _Digits(spec, shipped.student.network, shipped.training, {}, steps)


def _cell(channels: int, side: int, width: int) -> tuple[Workbench, Course]:
    grey = random_data()
    n, generator = 1024, torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, channels, side, side), dtype=torch.uint8, generator=generator)
    split = ImageSplit(images, grey.train.labels[:n], torch.arange(n))
    mean = (0.5,) * channels
    data = TrainingData(split, split, grey.classes, mean, mean, "d" * 64)
    model = ModelConfig(name=ModelName.RESNET8, width=width)
    torch.manual_seed(0)
    student = build_model(model, n_classes=len(data.classes), in_channels=channels)
    training = TrainingConfig(epochs=1, batch_size=BATCH, precision="fp32")
    bench = Workbench(data, ViewsConfig(), view_seed=VIEW_SEED, device=CPU)
    return bench, Course(student, CeConfig(), training, seed=0)


def _gain(course: Course, bench: Workbench, choice: PackChoice, rounds: int) -> float:
    """Median ratio, in turns, of a lone step's seconds and of a pack's step for each of its students."""
    if choice.form is None:
        raise ValueError("there is no pack to compare with")
    tickets = [Ticket(course, lambda *_: None) for _ in range(choice.lanes)]
    pack = Pack(tickets[0], bench, choice.form)
    for ticket in tickets:
        pack.admit(ticket)
    packed, alone = pack.steps(), steps_alone(course, bench)
    packed()
    alone()
    ratios = []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(min(choice.lanes, 8)):
            alone()
        half = time.perf_counter()
        packed()
        own_s = (half - began) / min(choice.lanes, 8)
        ratios.append(own_s * choice.lanes / (time.perf_counter() - half))
    return statistics.median(ratios)
