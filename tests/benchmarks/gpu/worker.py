"""A process that measures one benchmark after the other, and is replaced when one fails or hangs.

All of them in one: a process of its own for each would spend most of the time on importing PyTorch and on
starting the GPU.
"""

from __future__ import annotations

import gc
import multiprocessing
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Final, Self

import torch

from tests.benchmarks.figures import Figure
from tests.benchmarks.registry import figure_of
from tests.gpu.tried import tried_device

THREADS: Final = 4
"""Of PyTorch on the host."""
_ENDING_S: Final = 10


class BenchmarkFailed(Exception):
    """A benchmark gave no figure; what it raised is on the standard error."""


class GpuWorker:
    """Measures in a process that is started when it is first needed."""

    def __init__(self) -> None:
        self._process: BaseProcess | None = None
        self._line: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def measure(self, path: str, timeout_s: float) -> Figure:
        """The figure of a benchmark of the registry.

        Raises:
            BenchmarkFailed: it raised, its process died, or it was not done in time.
        """
        began = time.monotonic()
        line = self._line or self._start()
        line.send(path)
        if not line.poll(timeout_s):
            self._end()
            raise BenchmarkFailed(f"was not done after {time.monotonic() - began:.0f} s")
        try:
            figure = line.recv()
        except EOFError as error:
            status = self._end()
            raise BenchmarkFailed(f"its process ended with status {status}") from error
        if not isinstance(figure, Figure):
            raise TypeError(f"{path} gave a {type(figure).__name__}, not a Figure")
        return figure

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,))
        self._process.start()
        theirs.close()  # else the end of the process would not be seen
        return self._line

    def _end(self) -> int | None:
        process, self._process, self._line = self._process, None, None
        if process is None:
            return None
        process.join(0.5)
        if process.exitcode is None:
            process.kill()
            process.join(_ENDING_S)
        return process.exitcode


def _serve(line: Connection) -> None:
    on_gpu = tried_device().type == "cuda"
    torch.set_num_threads(THREADS if on_gpu else 1)
    while True:
        try:
            path = line.recv()
        except EOFError:
            return
        line.send(figure_of(path))
        gc.collect()
        if on_gpu:
            torch.cuda.empty_cache()
