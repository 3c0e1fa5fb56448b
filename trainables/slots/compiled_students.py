"""Compiled students: `torch.compile` is paid once per architecture, and later trials bring their weights."""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainables.errors import ConfigError
from trainables.models.features import FeatureTap, Tapped
from trainables.slots.lru_cache import LruCache

MAX_COMPILED = 8
MAX_COMPILATIONS = 256
"""Of all networks of a class, where PyTorch has one limit for them; as many as it allows in all."""
COMPILERS = ("g++", "c++", "clang++")

FindTap = Callable[[nn.Module], FeatureTap | None]
"""Called with a network; gives what reads features off it, or none."""


@dataclass(frozen=True)
class CompiledStudent:
    """A network, and its forward pass in training, compiled; both have the same weights.

    The network itself stays plain: its state dict has the plain names, and evaluation, which would have
    to be compiled again for each size of a batch, goes through it.
    """

    model: nn.Module
    forward: Callable[[Tensor], Any]
    tap: FeatureTap | None = None
    """What reads features off it, which the forward pass gives too."""


class CompiledStudents:
    """The networks that a slot has compiled, the most recently used `max_items` of them.

    Networks that learn together count as one: else a course of more would compile its own anew each time.
    """

    def __init__(self, max_items: int = MAX_COMPILED, *, backend: str = "inductor") -> None:
        """Nothing is compiled yet; `backend` is one of `torch.compile`."""
        self._students: LruCache[str, CompiledStudent] = LruCache(max_items)
        self._max_items, self._backend = max_items, backend

    def take(
        self, key: str, fresh: nn.Module, find: FindTap = lambda _: None, *, together: int = 1
    ) -> CompiledStudent:
        """The compiled network of this key with the weights of `fresh`, which has the same architecture.

        The key says all that the compiled code depends on, features that `find` finds in the network too. A
        network that was taken before is the same object again, so its former owner must be done with it.
        Compilation itself happens in the first forward pass. The course takes as many networks as `together`.

        Raises:
            ConfigError: the backend needs a C++ compiler, and this machine has none.
        """
        if self._backend == "inductor":
            _require_compiler()
        self._students.grow(self._max_items + together - 1)
        student = self._students.get(key, lambda: self._compiled(fresh, find(fresh)))
        if student.model is not fresh:
            _overwrite(student.model, fresh)
        return student

    def _compiled(self, model: nn.Module, tap: FeatureTap | None) -> CompiledStudent:
        # Isolated, else all networks of one class share a limit of 8 compilations and run plain beyond it.
        isolated = "isolate_recompiles" in inspect.signature(torch.compile).parameters
        isolation: dict[str, Any] = {"isolate_recompiles": True} if isolated else {}
        whole = model if tap is None else Tapped(model, tap)
        forward = torch.compile(whole, dynamic=False, backend=self._backend, **isolation)
        if not isolated:  # PyTorch before 2.12
            torch._dynamo.config.recompile_limit = MAX_COMPILATIONS
        return CompiledStudent(model, forward, tap)


def find_compiler() -> str | None:
    """The C++ compiler that PyTorch's inductor would call, if there is one."""
    wished = os.environ.get("CXX")
    return next(filter(None, map(shutil.which, (wished,) if wished else COMPILERS)), None)


def _require_compiler() -> None:
    if find_compiler() is None:
        raise ConfigError(
            f"training.compile is true, but this machine has no C++ compiler ({', '.join(COMPILERS)}, "
            "or CXX); install one, or set compile: false"
        )


@torch.no_grad()
def _overwrite(kept: nn.Module, fresh: nn.Module) -> None:
    """Everything that a network starts with: weights, statistics, and no gradient of the trial before."""
    kept.load_state_dict(fresh.state_dict())
    for name, value in fresh.named_buffers():  # those that are in no state dict too
        kept.get_buffer(name).copy_(value)
    kept.zero_grad(set_to_none=True)
    kept.train(fresh.training)
