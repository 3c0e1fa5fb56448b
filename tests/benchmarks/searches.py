"""What a search costs beside the training: its start, and each trial; through the real path.

Tuner, `StudentTrial`, broker and slots are the product's own, in the order in which the pipeline uses them.
"""

from __future__ import annotations

import statistics
import time
from typing import Final

from cluster.session import connect
from orchestrator.config.loading import load_experiment
from orchestrator.records.events import EpochEnded
from tests.benchmarks.documented import documented_trials_s
from tests.benchmarks.figures import Bound, Figure
from tests.benchmarks.slot_searches import EPOCHS, scratch_folder, search_of, tiny_experiment
from tests.benchmarks.surroundings import surroundings

OVERHEAD_RATIO: Final = Bound(100, at_least=True)
FIRST_REPORT_S: Final = Bound(15)


def trial_overhead_ratio(trials: int = 40, documented_trials: int = 5) -> Figure:
    """Seconds a trial costs by the documented recipe, over seconds in a warm slot; both one at a time.

    In both the first trial, which also waits for the Tuner's start, is not counted.
    """
    # Four CPUs by Ray's count, on any machine: a documented trial holds one and waits for its worker's.
    # Ours comes first, so that the other finds the files of Ray and PyTorch in the page cache.
    with connect("local", cpus=4), scratch_folder() as folder:
        with search_of(tiny_experiment(trials), folder) as search:
            up_s = search.start_slots()
            whole_s = search.run()
            ours_s = statistics.fmean(search.ledger.gaps_s())
        documented_s = documented_trials_s(documented_trials, folder)
    median_s = statistics.median(documented_s)
    how = (
        f"trials of {EPOCHS} epochs one at a time, in one Ray session with the product's settings of Ray, "
        f"from the end of one to the end of the next: the median of {len(documented_s)} of a Tune function "
        f"that fits a TorchTrainer of 1 worker with {EPOCHS} empty reports ({median_s:.2f} s), over the mean "
        f"of {trials - 1} through Tuner, StudentTrial, broker and 1 warm slot that really trains an mlp on "
        f"32 digits, ranks and keeps it ({ours_s:.3f} s); not counted, once a search: the Tuner's start and "
        f"our first trial ({whole_s - ours_s * (trials - 1):.1f} s), and the slot's start ({up_s:.1f} s); "
        f"{surroundings('ray', 'torch')}"
    )
    return Figure(median_s / ours_s, "x", how, OVERHEAD_RATIO)


def first_report_seconds(slots: int = 2) -> Figure:
    """Seconds from the start of a search, with no slot up, to its first epoch in the driver's ledger."""
    several_s = _first_report_s(slots)
    one_s = _first_report_s(1)
    how = (
        f"from the start of {slots} slots and the Tuner (Ray up, driver's imports done, as in a run) to the "
        f"first epoch in the ledger, for the shipped experiment digits' data, views and student with "
        f"cross-entropy, {slots} logical CPUs; with 1 slot on 1 CPU, measured after it, {one_s:.1f} s; "
        f"{surroundings('ray', 'torch')}"
    )
    return Figure(several_s, "s", how, FIRST_REPORT_S)


def _first_report_s(slots: int) -> float:
    shipped = load_experiment("digits").config
    experiment = shipped.with_overrides(
        training={**shipped.training.plain(), "epochs": 2},
        budget={"trials": slots},
        cluster={"slots": slots, "gpus_per_worker": 0},
    )
    with (
        connect("local", cpus=slots),
        scratch_folder() as folder,
        search_of(experiment, folder) as search,
    ):
        began_ms = time.time_ns() // 1_000_000
        search.workers.start_slots()
        search.run()
        first_ms = search.ledger.events_of(EpochEnded)[0].time_ms
    return float(first_ms - began_ms) / 1000
