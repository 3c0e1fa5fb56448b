"""A recorder that stands for a CUDA graph on the CPU, and refuses whatever such a graph could not hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from trainables.training.capture.recorders import Changed, DrawsRandomNumbers, Recorder, Step, undone

_WAITING: Final = frozenset(
    f"aten::{name}"
    for name in (
        "_local_scalar_dense",
        "nonzero",
        "equal",
        "masked_select",
        "_unique2",
        "unique_dim",
        "unique_consecutive",
        "bincount",
        "_linalg_eigh",
        "_linalg_svd",
        "lift_fresh",
    )
)
"""Operations for which a GPU would be waited for; the last is `torch.tensor`, which copies from the host."""
_CHOOSING: Final = frozenset({"aten::index", "aten::index_put_", "aten::index_put"})
"""Those for which it would be waited for where truths choose, and not numbers."""


class NotReplayable(AssertionError):
    """A graph would not do what the step does."""


class Replays:
    """Makes a step again at each replay, and compares what it does with what it did when it was recorded.

    The same operations, with the same plain numbers, must read the same tensors: a graph keeps all of them.
    """

    holds = True

    def __init__(self) -> None:
        self.recorded = 0
        self.refused = 0
        self.replayed = 0

    def record(self, step: Step, changed: Changed) -> Step | None:
        """See `Recorder`."""
        try:
            with undone(changed, torch.device("cpu")):
                step()
                step()
        except DrawsRandomNumbers:
            self.refused += 1
            return None
        self.recorded += 1
        with undone(changed, torch.device("cpu")):
            kept = _watched(step)
        where = _places(changed())

        def replay() -> None:
            self.replayed += 1
            now = _watched(step)
            for number, (before, after) in enumerate(zip(kept.calls, now.calls, strict=False)):
                if before != after:
                    raise NotReplayable(f"operation {number} was {before} and is {after}")
            if len(kept.calls) != len(now.calls):
                raise NotReplayable(f"{len(kept.calls)} operations were recorded, now there are others")
            if _places(changed()) != where:
                raise NotReplayable("tensors that the step changes lie elsewhere than when it was recorded")

        return replay


class Recorders:
    """Gives a recorder to each who asks, and remembers all of them."""

    def __init__(self) -> None:
        self.given: list[Replays] = []

    def __call__(self) -> Replays:
        self.given.append(Replays())
        return self.given[-1]


class Counted:
    """A recorder whose successes are counted."""

    def __init__(self, own: Recorder) -> None:
        self._own, self.holds = own, own.holds
        self.recorded, self.refused = 0, 0

    def record(self, step: Step, changed: Changed) -> Step | None:
        replay = self._own.record(step, changed)
        self.recorded += replay is not None
        self.refused += replay is None
        return replay


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes each operation: its name, its plain numbers, and where tensors lie that it did not make."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, ...]] = []
        self._own: dict[int, Tensor] = {}
        self._others: dict[int, Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if name.startswith("profiler::"):  # an optimiser's step names itself
            return func(*args, **(kwargs or {}))
        chosen = tree_flatten(args[1])[0] if name in _CHOOSING else []
        if name in _WAITING or any(value.dtype == torch.bool for value in chosen if value is not None):
            raise NotReplayable(f"the step waits for the device, or copies from the host: {name}")
        given = [self._noted(value) for value in tree_flatten((args, kwargs or {}))[0]]
        result = func(*args, **(kwargs or {}))
        for value in tree_flatten(result)[0]:
            # What an operation changes in place is no tensor of its own.
            if isinstance(value, Tensor) and (where := _place(value)) not in self._others:
                self._own[where] = value
        self.calls.append((name, *given))
        return result

    def _noted(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value if isinstance(value, (int, float, bool, str)) else repr(value)
        where = _place(value)
        if where in self._own:
            return "its own"
        # Held, so that nothing else comes to lie there.
        self._others[where] = value
        return where


def _watched(step: Step) -> _Watch:
    watch = _Watch()
    with watch:
        step()
    return watch


def _place(value: Tensor) -> int:
    return value.untyped_storage().data_ptr()


def _places(values: Sequence[Tensor]) -> list[int]:
    return [value.data_ptr() for value in values]
