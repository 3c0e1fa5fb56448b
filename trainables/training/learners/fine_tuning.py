"""Which parts of a student are trained, and how fast: `training.freeze` and `training.lr_groups`.

Parts are named as the network's own modules and parameters are. `backbone` and `head` are understood where
the network has no modules of these names: the head is the linear layer that gives the logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from torch import nn

from trainables.config import TrainingConfig
from trainables.errors import ConfigError
from trainables.models.foreign.extras import nearest, shown
from trainables.models.foreign.start import head_prefix
from trainables.models.resized import NETWORK

HEAD: Final = "head"
BACKBONE: Final = "backbone"
LR_FACTOR: Final = "lr_factor"
"""What a parameter group of an optimiser has its rate multiplied by."""
_RESIZED: Final = f"{NETWORK}."


@dataclass(frozen=True)
class FineTuning:
    """What of one network is held, and at which part of the rate the rest is trained."""

    held: frozenset[str] = frozenset()
    """Names of parameters that are not trained."""
    modules: tuple[str, ...] = ()
    """Names of modules that stay in evaluation mode."""
    factors: Mapping[str, float] | None = None
    """By the names of parameters that are trained; none where all have the recipe's rate."""

    def train(self, model: nn.Module) -> None:
        """Put the network into training mode, and what is held into evaluation mode."""
        model.train()
        for name in self.modules:
            model.get_submodule(name).eval()

    def groups(self, model: nn.Module, others: nn.Module) -> list[dict[str, Any]]:
        """The parameter groups of an optimiser: the network's by their factors, then what `others` has."""
        own = {name: p for name, p in model.named_parameters() if name not in self.held}
        if self.factors is None:
            return [{"params": [*own.values(), *others.parameters()]}]
        groups = [
            {"params": [own[n] for n, f in self.factors.items() if f == factor], LR_FACTOR: factor}
            for factor in dict.fromkeys(self.factors.values())
        ]
        rest = list(others.parameters())
        return [*groups, *([{"params": rest, LR_FACTOR: 1.0}] if rest else [])]


def fine_tuning(model: nn.Module, training: TrainingConfig, n_classes: int) -> FineTuning:
    """What the recipe says of this network; nothing is changed in it.

    Raises:
        ConfigError: a name fits nothing of the network, or nothing is left to train.
    """
    if not (training.freeze or training.lr_groups):
        return FineTuning()
    parts = _Parts(model, n_classes)
    parameters = [name for name, _ in model.named_parameters()]
    frozen = [parts.named(pattern, "freeze") for pattern in training.freeze]
    held = {name for name in parameters if any(name in found for found in frozen)}
    if len(held) == len(parameters):
        raise ConfigError(
            f"training.freeze holds all of {type(model).__name__}, and nothing is left to train; leave its "
            "head out"
        )
    modules = parts.modules_within(set().union(*frozen))
    if not training.lr_groups:
        return FineTuning(frozenset(held), modules)
    factors = dict.fromkeys((name for name in parameters if name not in held), 1.0)
    for pattern in sorted(training.lr_groups, key=parts.rank):
        found = parts.named(pattern, "lr_groups") & factors.keys()
        if not found:
            raise ConfigError(
                f"training.lr_groups: {pattern!r} names only parts that training.freeze holds, or that have "
                "no parameters; leave it out of one of the two"
            )
        factors |= dict.fromkeys((name for name in factors if name in found), training.lr_groups[pattern])
    return FineTuning(frozenset(held), modules, factors)


def hold_frozen(model: nn.Module, training: TrainingConfig, n_classes: int) -> FineTuning:
    """The same, and what is held gets no gradient from now on.

    Raises:
        ConfigError: as `fine_tuning`.
    """
    tuning = fine_tuning(model, training, n_classes)
    for name, parameter in model.named_parameters():
        if name in tuning.held:
            parameter.requires_grad_(False)
    return tuning


class _Parts:
    """The names of a network's modules and parameters, and what patterns mean among them."""

    def __init__(self, model: nn.Module, n_classes: int) -> None:
        self._model = model
        self._modules = [name for name, _ in model.named_modules() if name]
        self._names = [*self._modules, *(name for name, _ in model.named_parameters())]
        self._own = {name.removeprefix(_RESIZED) for name in self._names}
        self._head = head_prefix(model, n_classes).removesuffix(".")

    def rank(self, pattern: str) -> tuple[bool, int, str]:
        """In which order factors are given: what comes later counts."""
        return pattern not in (HEAD, BACKBONE) or pattern in self._own, len(pattern), pattern

    def named(self, pattern: str, key: str) -> set[str]:
        """The names that fit, with all that is below them.

        Raises:
            ConfigError: none does.
        """
        if pattern in (HEAD, BACKBONE) and pattern not in self._own:
            return self._by_head(pattern, key)
        found = {
            name
            for name in self._names
            if any(fnmatchcase(whole, pattern) for whole in _with_parents(name.removeprefix(_RESIZED)))
        }
        if not found:
            top = {name.partition(".")[0] for name in self._own}
            raise ConfigError(
                f"training.{key}: nothing in {type(self._model).__name__} is called {pattern!r}; nearest: "
                f"{nearest(pattern, sorted(self._own))}; at its top are {shown(top)}"
            )
        return found

    def _by_head(self, pattern: str, key: str) -> set[str]:
        if not self._head:
            raise ConfigError(
                f"training.{key}: {type(self._model).__name__} has no linear layer that gives the logits, so "
                f"{pattern!r} is not clear; name its modules"
            )
        head = {name for name in self._names if self._head in _with_parents(name)}
        above = set(_with_parents(self._head))
        return head if pattern == HEAD else set(self._names) - head - above

    def modules_within(self, names: set[str]) -> tuple[str, ...]:
        """Those modules among the names that have weights or statistics, and all below them."""
        kept: list[str] = []
        for name in self._modules:
            parent = name.rpartition(".")[0]
            if name in names and (parent in kept or self._model.get_submodule(name).state_dict()):
                kept.append(name)
        return tuple(kept)


def _with_parents(name: str) -> Iterator[str]:
    """A dotted name, and those of all that it lies in."""
    while name:
        yield name
        name = name.rpartition(".")[0]
