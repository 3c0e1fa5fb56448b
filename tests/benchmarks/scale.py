"""What becomes of a search when it grows: a thousand trials, four slots; through the real path."""

from __future__ import annotations

import statistics
from typing import Final

from cluster.session import connect
from orchestrator.records.events import EpochEnded, TrialStarted
from search_spaces.space import SpaceConfig
from tests.benchmarks.figures import Bound, Figure
from tests.benchmarks.slot_searches import (
    EPOCHS,
    SPACE,
    TimedLedger,
    scratch_folder,
    search_of,
    tiny_experiment,
)
from tests.benchmarks.surroundings import surroundings

SLOWDOWN: Final = Bound(1.2)
MEMORY_GROWTH: Final = Bound(1.2)
EFFICIENCY: Final = Bound(0.95, at_least=True)

TRIALS: Final = 1000
HUNDRED: Final = 100

# The time that a model-based searcher needs grows with what it knows, and is not the dispatch's.
RANDOM_SPACE: Final = SpaceConfig.from_plain({**SPACE.plain(), "search": {"algorithm": "random"}})

SLEEP_S: Final = 0.1
SLEEP_EPOCHS: Final = 8
BATCHES: Final = 4


def dispatch_slowdown_1000(trials: int = TRIALS, slots: int = 2) -> Figure:
    """Seconds a no-op trial takes among the last hundred of a long search, over the first hundred."""
    ledger = _long_search(trials, slots)
    # The first trial also waits until Tune has started, the data are loaded and the first proxies are up.
    gaps_s = ledger.gaps_s()
    first_s, last_s = (statistics.fmean(part) for part in (gaps_s[: HUNDRED - 1], gaps_s[-HUNDRED:]))
    how = (
        f"mean time from the end of one trial to the end of the next, in the last {HUNDRED} of {trials} "
        f"trials ({1000 * last_s:.0f} ms) over trials 1 to {HUNDRED} ({1000 * first_s:.0f} ms); "
        f"{_long(slots)}; {surroundings('ray', 'torch')}"
    )
    return Figure(last_s / first_s, "x", how, SLOWDOWN)


def driver_memory_growth_1000(trials: int = TRIALS, slots: int = 2) -> Figure:
    """Resident memory of the driver after a long search, over that after its first hundred trials."""
    resident_bytes = _long_search(trials, slots).resident_bytes
    before_mb, after_mb = (resident_bytes[number - 1] / 1e6 for number in (HUNDRED, trials))
    how = (
        f"resident memory of the driver's process after {trials} trials ({after_mb:.0f} MB) over that after "
        f"{HUNDRED} ({before_mb:.0f} MB); {_long(slots)}; {surroundings('ray', 'torch')}"
    )
    return Figure(after_mb / before_mb, "x", how, MEMORY_GROWTH)


def slot_scaling_efficiency_4(slots: int = 4, trials_per_slot: int = 10) -> Figure:
    """Throughput of several slots over that many times that of one, in training that only sleeps."""
    one = _epochs_per_s(1, trials_per_slot)
    several = _epochs_per_s(slots, slots * trials_per_slot)
    how = (
        f"epochs/s of {slots} slots ({several:.2f}) over {slots} times those of 1 slot ({one:.2f}), while "
        f"every slot has work; {trials_per_slot} trials a slot, each slot one logical CPU; a student that "
        f"sleeps {SLEEP_S:g} s a batch, {BATCHES} batches an epoch, {SLEEP_EPOCHS} epochs, through Tuner, "
        f"StudentTrial, broker and slots; {surroundings('ray', 'torch')}"
    )
    return Figure(several / (slots * one), "x", how, EFFICIENCY)


def _long_search(trials: int, slots: int) -> TimedLedger:
    with (
        connect("local", cpus=slots),
        scratch_folder() as folder,
        search_of(tiny_experiment(trials, slots=slots), folder) as search,
    ):
        search.start_slots()
        search.run(RANDOM_SPACE)
        return search.ledger


def _long(slots: int) -> str:
    return (
        f"each trial really trains an mlp on 32 digits for {EPOCHS} epochs of one step, ranks and keeps it, "
        f"through Tuner (random search, no scheduler), StudentTrial, broker and {slots} warm slots"
    )


def _epochs_per_s(slots: int, trials: int) -> float:
    experiment = tiny_experiment(
        trials,
        slots=slots,
        student={
            "factory": "tests.benchmarks.sleeper:sleeper",
            "arguments": {"pixels": 64, "sleep_s": SLEEP_S},
        },
        training={"epochs": SLEEP_EPOCHS, "batch_size": 8},
    )
    with (
        connect("local", cpus=slots),
        scratch_folder() as folder,
        search_of(experiment, folder) as search,
    ):
        search.start_slots()
        search.run(RANDOM_SPACE)
        return _steady_epochs_per_s(search.ledger, slots)


def _steady_epochs_per_s(ledger: TimedLedger, slots: int) -> float:
    """Epochs a second from when every slot has told one to when the last trial starts: no slot idles then."""
    epochs = ledger.events_of(EpochEnded)
    first_of = {event.trial: event.time_ms for event in reversed(epochs)}
    started = ledger.events_of(TrialStarted)
    begin_ms = max(first_of[event.trial] for event in started[:slots])
    end_ms = started[-1].time_ms
    told = sum(begin_ms < event.time_ms <= end_ms for event in epochs)
    return 1000.0 * told / (end_ms - begin_ms)
