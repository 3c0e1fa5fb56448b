"""A training step that is recorded once and then replayed whole: the one seam to CUDA graphs."""

from __future__ import annotations

import contextlib
import gc
import logging
import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

import numpy as np
import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

Step = Callable[[], None]
"""Reads tensors that stay where they are, and changes such tensors; it leaves nothing else behind."""
Changed = Callable[[], Sequence[Tensor]]
"""The tensors that a step changes, as far as they exist; what its first run makes begins as zeros."""


class Recorder(Protocol):
    """Makes of a step something that does the same again with less work for the host."""

    holds: bool
    """Whether what a step reads must stay in the same tensors: then inputs are copied into them."""

    def record(self, step: Step, changed: Changed) -> Step | None:
        """The replay of a step, or none where the step itself is to be called each time.

        No step has been made when it comes back: what was tried is undone in the tensors of `changed`. A
        replay does what the step does now: Python is not asked again, and numbers stay as they are.
        """


class Plain:
    """Every step is called: where there is nothing to replay it with."""

    holds = False

    def record(self, step: Step, changed: Changed) -> Step | None:
        """None."""
        return None


class CudaGraphs:
    """A step becomes one CUDA graph, in memory of its own."""

    holds = True

    def __init__(self, device: torch.device) -> None:
        """A recorder for one course or one pack: what it finds impossible it does not try again."""
        self._device = device
        self._impossible = False
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream: torch.cuda.Stream | None = None

    def record(self, step: Step, changed: Changed) -> Step | None:
        """See `Recorder`; a step that cannot be a graph is called each time, which the log says once."""
        # The graph of before may still be running; until now it was kept, whoever let go of its replay.
        torch.cuda.synchronize(self._device)
        self._graph = None
        if self._impossible:
            return None
        # One for all that is tried and recorded: autograd goes on with the stream that it saw first.
        stream = self._stream = self._stream or torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        try:
            with undone(changed, self._device), _beside(stream):
                # The first run loads kernels and makes what is made once; both may wait for the device.
                step()
                with _refusing_to_wait():
                    step()
            self._graph = _graph_of(step, stream)
        except RuntimeError as error:
            # Where the memory is too small for a graph, that of fewer lanes may fit another time.
            self._impossible = not isinstance(error, torch.OutOfMemoryError)
            log.warning("steps are started kernel by kernel, and not as one CUDA graph: %s", error)
            return None
        return self._graph.replay


class DrawsRandomNumbers(RuntimeError):
    """A step that would draw the same random numbers at each replay, or others than when it is called."""


def recorder_for(device: torch.device) -> Recorder:
    """What records the steps of a course on a device."""
    return CudaGraphs(device) if device.type == "cuda" else Plain()


@contextlib.contextmanager
def undone(changed: Changed, device: torch.device) -> Iterator[None]:
    """What is done meanwhile is undone at the end, in the tensors of `changed` and in random states.

    Raises:
        DrawsRandomNumbers: random states did not stay as they were.
    """
    kept = [(value, value.detach().clone()) for value in changed()]
    known, drawn = {id(value) for value, _ in kept}, RandomStates(device)
    try:
        yield
    finally:
        with torch.no_grad():
            for value, before in kept:
                value.copy_(before)
            for value in changed():
                if id(value) not in known:
                    value.zero_()
        has_drawn = drawn.have_moved()
        drawn.restore()
    if has_drawn:
        raise DrawsRandomNumbers("it draws random numbers, as dropout does")


class RandomStates:
    """All generators that a step might draw from, as they are when this is made."""

    def __init__(self, device: torch.device) -> None:
        """PyTorch's of the device and of the CPU, NumPy's and Python's."""
        self._device = device
        self._states = self._now()
        self._of_numpy, self._of_python = np.random.get_state(legacy=False), random.getstate()

    def have_moved(self) -> bool:
        """Whether something was drawn since."""
        pairs = zip(self._states, self._now(), strict=True)
        if any(not torch.equal(before, now) for before, now in pairs):
            return True
        numpy_now = np.random.get_state(legacy=False)
        # Written out, since a part of it is an array.
        same_in_numpy = pickle.dumps(numpy_now) == pickle.dumps(self._of_numpy)
        return not same_in_numpy or random.getstate() != self._of_python

    def restore(self) -> None:
        """Bring them back."""
        torch.set_rng_state(self._states[0])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(self._states[1], self._device)
        np.random.set_state(self._of_numpy)
        random.setstate(self._of_python)

    def _now(self) -> list[Tensor]:
        own = [torch.cuda.get_rng_state(self._device)] if self._device.type == "cuda" else []
        return [torch.get_rng_state(), *own]


class PlainNumbers:
    """The numbers and words that modules have as attributes, as they are when this is made."""

    def __init__(self, network: nn.Module) -> None:
        """Of the network and all its parts."""
        self._network = network
        self._values = self._now()

    def have_moved(self) -> bool:
        """Whether a pass has changed some, as where it counts passes: a graph would keep the first."""
        return self._now() != self._values

    def restore(self) -> None:
        """Bring them back."""
        for number, module in enumerate(self._network.modules()):
            for name, value in self._values[number].items():
                setattr(module, name, value)

    def _now(self) -> list[dict[str, object]]:
        return [
            {name: value for name, value in vars(module).items() if _is_plain(name, value)}
            for module in self._network.modules()
        ]


def _is_plain(name: str, value: object) -> bool:
    # The mode is set by whoever trains and judges, before each pass.
    return name != "training" and isinstance(value, bool | int | float | str)


def recorded(recorder: Recorder, step: Step, changed: Changed, network: nn.Module) -> Step | None:
    """The replay of a step of a network, or none also where that keeps numbers of its own in Python."""
    numbers = PlainNumbers(network)
    replay = recorder.record(step, changed)
    if not numbers.have_moved():
        return replay
    numbers.restore()
    log.warning("steps are not replayed: the network changes numbers of its own in each pass")
    return None


@contextlib.contextmanager
def _beside(stream: torch.cuda.Stream) -> Iterator[None]:
    """Work on another stream, after all that was asked for before and before all that comes later."""
    here = torch.cuda.current_stream(stream.device)
    stream.wait_stream(here)
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        here.wait_stream(stream)


_ERROR: Final = 2
"""Of torch.cuda.set_sync_debug_mode: whatever makes the host wait for the device raises."""


@contextlib.contextmanager
def _refusing_to_wait() -> Iterator[None]:
    """Raise where the host waits for the device: found here it does no harm, within a capture it does."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode(_ERROR)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _graph_of(step: Step, stream: torch.cuda.Stream) -> torch.cuda.CUDAGraph:
    here, collects = torch.cuda.current_stream(stream.device), gc.isenabled()
    graph = torch.cuda.CUDAGraph()
    # What another graph held may not be let go of while this one is recorded.
    gc.disable()
    try:
        # Threads that do something else, such as decoding, may go on with it.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            step()
    finally:
        # A capture that fails leaves its own stream behind as the current one.
        torch.cuda.set_stream(here)
        if collects:
            gc.enable()
    return graph
