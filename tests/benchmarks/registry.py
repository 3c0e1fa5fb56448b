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
        "run_fixed_cpu_s": "tests.benchmarks.fixed_cost.run_cost:run_fixed_cpu_s",
        "dispatch_slowdown_1000": "tests.benchmarks.scale:dispatch_slowdown_1000",
        "driver_memory_growth_1000": "tests.benchmarks.scale:driver_memory_growth_1000",
        "slot_scaling_efficiency_4": "tests.benchmarks.scale:slot_scaling_efficiency_4",
        "kd_step_over_ce": "tests.benchmarks.steps:kd_step_over_ce",
        "feature_tap_cost": "tests.benchmarks.steps:feature_tap_cost",
        "online_step_over_ce": "tests.benchmarks.steps:online_step_over_ce",
        "loop_over_plain_torch": "tests.benchmarks.loops:loop_over_plain_torch",
        **{
            f"bf16_over_fp32.{name}_{width}": f"tests.benchmarks.loops:bf16_over_fp32 {name} {width}"
            for name, width in (
                ("resnet8", 16),
                ("resnet8", 4),
                ("vgg8", 64),
                ("mlp", 1024),
                ("mlp", 256),
                ("mobilenetv2", 8),
                ("shufflenetv2", 116),
            )
        },
        "packed_trials_gain_digits": "tests.benchmarks.packs:packed_trials_gain_digits",
        "packed_trials_never_slower": "tests.benchmarks.packs:packed_trials_never_slower",
        "packed_finalists_gain": "tests.benchmarks.packs:packed_finalists_gain",
        "pack_refill_cost": "tests.benchmarks.packs:pack_refill_cost",
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
        "report_open_ms_1000": "tests.benchmarks.report_pages:report_open_ms_1000",
        "report_bytes_1000": "tests.benchmarks.report_pages:report_bytes_1000",
        "report_cpu_s_1000": "tests.benchmarks.report_pages:report_cpu_s_1000",
        "record_runs_per_s": "tests.benchmarks.records.recording:record_runs_per_s",
        "record_memory_mb": "tests.benchmarks.records.recording:record_memory_mb",
        "record_slowdown": "tests.benchmarks.records.slowdown:record_slowdown",
        **{
            f"best_row_ms_{trials}": f"tests.benchmarks.records.rows:best_row_ms {trials}"
            for trials in (100, 10_000)
        },
        "features_cached_over_online": "tests.benchmarks.features:features_cached_over_online",
        **{
            f"objective_step_over_ce.{name}": f"tests.benchmarks.objectives:objective_step_over_ce {name}"
            for name in OBJECTIVE_CONFIGS
            if name != "ce"
        },
    }
)

# In the order in which they run while there is time. `make gpu` runs them, `make bench` does not.
GPU_BENCHMARKS: Final[Mapping[str, str]] = MappingProxyType(
    {
        **{
            f"gpu_train_images_per_s.{precision}_{batch}": f"tests.benchmarks.gpu.steps:train_images_per_s "
            f"{precision} {batch}"
            for batch in (64, 128, 256, 512)
            for precision in ("fp32", "bf16")
        },
        "gpu_packed_trials_gain_resnet8x4": "tests.benchmarks.gpu.packs:packed_trials_gain resnet8x4",
        "gpu_packed_trials_gain_small": "tests.benchmarks.gpu.packs:packed_trials_gain small",
        "gpu_step_over_kernels": "tests.benchmarks.gpu.packs:step_over_kernels",
        "gpu_kd_64_trials": "tests.benchmarks.gpu.packs:kd_64_trials",
        "gpu_kd_step_over_ce": "tests.benchmarks.gpu.teachers:kd_step_over_ce",
        "gpu_online_step_over_ce": "tests.benchmarks.gpu.teachers:online_step_over_ce",
        **{
            f"gpu_idle_share.{precision}_{batch}": f"tests.benchmarks.gpu.launches:idle_share "
            f"{precision} {batch}"
            for precision, batch in (("fp32", 64), ("bf16", 64), ("fp32", 512), ("bf16", 512))
        },
        **{
            f"gpu_graph_gain.{precision}_{batch}": f"tests.benchmarks.gpu.launches:graph_gain "
            f"{precision} {batch}"
            for precision, batch in (("fp32", 64), ("fp32", 512))
        },
        "gpu_loop_over_plain_torch.fp32": "tests.benchmarks.gpu.steps:loop_over_plain_torch fp32",
        "gpu_loop_over_plain_torch.bf16": "tests.benchmarks.gpu.steps:loop_over_plain_torch bf16",
        "gpu_auto_precision_gain.64": "tests.benchmarks.gpu.steps:auto_precision_gain 64",
        "gpu_auto_precision_gain.512": "tests.benchmarks.gpu.steps:auto_precision_gain 512",
        "gpu_channels_last_gain.fp32": "tests.benchmarks.gpu.steps:channels_last_gain fp32",
        "gpu_channels_last_gain.bf16": "tests.benchmarks.gpu.steps:channels_last_gain bf16",
        "gpu_sharing_gain.fp32_4": "tests.benchmarks.gpu.sharing:sharing_gain fp32 4",
        "gpu_rerun_drift": "tests.benchmarks.gpu.steps:rerun_drift",
        "gpu_render_images_per_s.crop_flip": "tests.benchmarks.gpu.views:render_images_per_s crop_flip",
        "gpu_render_images_per_s.randaugment": "tests.benchmarks.gpu.views:render_images_per_s randaugment",
        "gpu_teacher_pass_images_per_s.fp32": "tests.benchmarks.gpu.teachers:teacher_pass_images_per_s fp32",
        "gpu_teacher_pass_images_per_s.bf16": "tests.benchmarks.gpu.teachers:teacher_pass_images_per_s bf16",
        **{
            f"gpu_gather_over_index_select.{where}": "tests.benchmarks.gpu.teachers:gather_over_index_select "
            + where
            for where in ("resident", "mapped")
        },
        **{
            f"gpu_objective_step_over_ce.{name}": "tests.benchmarks.gpu.teachers:objective_step_over_ce "
            + name
            for name in OBJECTIVE_CONFIGS
            if name != "ce"
        },
        "gpu_compile_gain.fp32": "tests.benchmarks.gpu.steps:compile_gain fp32",
        "gpu_compile_gain.bf16": "tests.benchmarks.gpu.steps:compile_gain bf16",
    }
)


def measure(name: str) -> Figure:
    """The figure of one benchmark, measured in a process of its own."""
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(figure_of, BENCHMARKS[name]).result()


def figure_of(path: str) -> Figure:
    """The figure of a benchmark of the tables, measured in this process."""
    function, *arguments = path.split()
    figure = load_factory(function)(*arguments)
    if not isinstance(figure, Figure):
        raise TypeError(f"{path} returned a {type(figure).__name__}; a benchmark returns a Figure")
    return figure
