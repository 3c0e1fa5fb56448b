"""The logits in what a network returns: an object with `.logits`, a dictionary, a tuple.

This is a forward hook and no module around the network, so the names of its weights, its layers and its class
stay as they are, for checkpoints, embeddings, compilers and exporters alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from torch import Tensor, nn
from torch.fx import Proxy

from trainables.errors import ConfigError

# B = samples, C = classes

_LOGITS: Final = "logits"


def _is_like_tensor(value: object) -> TypeGuard[Tensor]:
    """A tensor, or what stands for one where the forward pass is followed (`models/features/traced.py`)."""
    return isinstance(value, Tensor | Proxy)


@dataclass(frozen=True)
class LogitsHook:
    """Hands on one tensor of an output that is none; all else in it, as auxiliary logits, is dropped."""

    n_classes: int
    which: int | str | None
    """The name or the place of the logits; none: those called `logits`, or the only tensor BxC."""

    def __call__(self, network: nn.Module, _inputs: tuple[Any, ...], output: Any) -> Tensor | None:
        """The logits; none where the output is a tensor already, which then stays.

        Raises:
            ConfigError: they are not there, are no tensor, or might be one of several.
        """
        if _is_like_tensor(output):
            return None
        mode = "training" if network.training else "evaluation"
        returns = f"{type(network).__name__} returns a {type(output).__name__} in {mode} mode"
        logits = self._logits(output, returns)
        if not _is_like_tensor(logits):
            raise ConfigError(
                f"{returns}, and its logits are a {type(logits).__name__}; they must be a tensor"
            )
        return logits

    def _logits(self, output: Any, returns: str) -> Any:
        members = _members(output)
        if isinstance(self.which, int) and -len(members) <= self.which < len(members):
            return list(members.values())[self.which]
        if self.which in members:
            return members[self.which]
        wanted = _LOGITS if self.which is None else self.which
        if isinstance(wanted, str) and hasattr(output, wanted):
            return getattr(output, wanted)
        if self.which is not None:
            raise ConfigError(
                f"{returns}, in which there is no {self.which!r}; `output` may be {_list(members)}"
            )
        if _LOGITS in members:
            return members[_LOGITS]
        fitting = {name: value for name, value in members.items() if self._fits(value)}
        if len(fitting) == 1:
            return next(iter(fitting.values()))
        if fitting:
            raise ConfigError(
                f"{returns}, in which {_list(fitting)} are all of shape Bx{self.n_classes}; say which "
                f"are the logits, as `output: {next(iter(fitting))}` beside its `factory`"
            )
        raise ConfigError(
            f"{returns}, in which nothing is called `logits` and no tensor is of floating point and shape "
            f"Bx{self.n_classes}; it holds {_list(members)}; return a number for each class of the data set"
        )

    def _fits(self, value: object) -> bool:
        return (
            _is_like_tensor(value)
            and value.is_floating_point()
            and value.dim() == 2
            and value.shape[1] == self.n_classes
        )


def with_logits(network: nn.Module, *, n_classes: int, which: int | str | None) -> nn.Module:
    """The same network, which from now on returns a tensor."""
    network.register_forward_hook(LogitsHook(n_classes, which))
    return network


def may_drop_outputs(network: nn.Module) -> bool:
    """Whether parts of a network may get no gradient, since what they give is not among its logits."""
    return any(
        isinstance(hook, LogitsHook)
        for module in network.modules()
        for hook in module._forward_hooks.values()
    )


def _members(output: Any) -> dict[int | str, Any]:
    """What an output holds, by name, or by place where it has no names."""
    if isinstance(output, Mapping):
        return dict(output)
    if isinstance(output, tuple) and hasattr(output, "_asdict"):
        return dict(output._asdict())
    if isinstance(output, tuple | list):
        return dict(enumerate(output))
    return dict(getattr(output, "__dict__", {}))


def _list(members: Mapping[int | str, Any]) -> str:
    return ", ".join(map(str, members)) or "nothing"
