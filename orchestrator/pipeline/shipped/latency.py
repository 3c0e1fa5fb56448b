"""How long an exported ONNX file takes, in ONNX Runtime on the CPU of this machine."""

from __future__ import annotations

from pathlib import Path

import torch

from trainables.evaluation.profiling import (
    LARGE_BATCH,
    THREADS,
    device_name,
    time_forwards,
    time_large_batch,
)
from trainables.export.model_card import FileLatency
from trainables.export.onnx_session import RUNTIME, onnx_forward
from trainables.export.opening import runtime_version


def onnx_latency(path: Path, input_shape: tuple[int, int, int]) -> FileLatency:
    """Of one image and of 64 at once, on one thread, as the PyTorch student is measured.

    Nothing else should compute here meanwhile.

    Raises:
        CheckpointError: it is no exported student.
    """
    forward = onnx_forward(path, threads=THREADS)
    one = time_forwards(forward, torch.rand(1, *input_shape))
    many = time_large_batch(forward, torch.rand(LARGE_BATCH, *input_shape))
    return FileLatency(
        batch_1_median_ms=one.median_ms,
        batch_1_p95_ms=one.p95_ms,
        batch_64_median_ms=many.median_ms,
        batch_64_p95_ms=many.p95_ms,
        device=device_name(torch.device("cpu")),
        threads=THREADS,
        runtime=runtime_version(RUNTIME),
    )
