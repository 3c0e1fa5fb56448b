"""The benchmarks by name, and how one is run."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from types import MappingProxyType
from typing import Final

from tests.benchmarks.figures import Figure
from trainables.config import OBJECTIVE_CONFIGS
from trainables.factories import load_factory

# By name, with an argument where several share a function, and not imported: each runs in a fresh process,
# where nothing is loaded but what it loads itself.
BENCHMARKS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "trial_overhead_ratio": "tests.benchmarks.searches:trial_overhead_ratio",
        "first_report_seconds": "tests.benchmarks.searches:first_report_seconds",
        "dispatch_slowdown_1000": "tests.benchmarks.scale:dispatch_slowdown_1000",
        "driver_memory_growth_1000": "tests.benchmarks.scale:driver_memory_growth_1000",
        "slot_scaling_efficiency_4": "tests.benchmarks.scale:slot_scaling_efficiency_4",
        "kd_step_over_ce": "tests.benchmarks.steps:kd_step_over_ce",
        "online_step_over_ce": "tests.benchmarks.steps:online_step_over_ce",
        "loop_over_plain_torch": "tests.benchmarks.loops:loop_over_plain_torch",
        "auto_precision_gain": "tests.benchmarks.loops:auto_precision_gain",
        "render_crop_flip_speedup": "tests.benchmarks.rendering:render_crop_flip_speedup",
        "render_randaugment_speedup": "tests.benchmarks.rendering:render_randaugment_speedup",
        "folder_view_over_torchvision": "tests.benchmarks.folders:folder_view_over_torchvision",
        "folder_second_start_share": "tests.benchmarks.folders:folder_second_start_share",
        "cache_build_over_teacher": "tests.benchmarks.teachers:cache_build_over_teacher",
        "search_online_over_cached": "tests.benchmarks.teachers:search_online_over_cached",
        "cache_bytes_per_row_1000": "tests.benchmarks.cache_files:cache_bytes_per_row_1000",
        "cache_gather_over_index_select": "tests.benchmarks.cache_files:cache_gather_over_index_select",
        "cache_open_second_ms": "tests.benchmarks.cache_files:cache_open_second_ms",
        "cache_build_memory_gb": "tests.benchmarks.cache_files:cache_build_memory_gb",
        "cached_fp16_weight_drift": "tests.benchmarks.drift:cached_fp16_weight_drift",
        **{
            f"objective_step_over_ce.{name}": f"tests.benchmarks.objectives:objective_step_over_ce {name}"
            for name in OBJECTIVE_CONFIGS
            if name != "ce"
        },
    }
)


def measure(name: str) -> Figure:
    """The figure of one benchmark, measured in a process of its own."""
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_figure, BENCHMARKS[name]).result()


def _figure(path: str) -> Figure:
    function, *arguments = path.split()
    figure = load_factory(function)(*arguments)
    if not isinstance(figure, Figure):
        raise TypeError(f"{path} returned a {type(figure).__name__}; a benchmark returns a Figure")
    return figure
