"""The losses of all lanes: of one objective, with hyper-parameters of each lane's own."""

# L = lanes, B = samples in the batch, K = classes

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor
from torch.func import vmap

from trainables.config import ObjectiveBase
from trainables.objectives import build_objective
from trainables.signals import Losses, Mixing, Signals, TeacherSignal

log = logging.getLogger(__name__)

_TOLERANCE: Final = 1e-4
"""Relative, of losses and gradients in fp32."""
_EPOCH: Final = 1
"""Hyper-parameters come as they are in their epoch, so the objective need not know which it is."""


@dataclass(frozen=True)
class LaneSignals:
    """What `Signals` holds, of all lanes: each tensor has a first dimension more."""

    student: Mapping[str, Tensor]
    """By bank LxBxK, with gradient."""
    teacher: Mapping[str, TeacherSignal]
    labels_LB: Tensor
    mixed: Mapping[str, Mixing] = field(default_factory=dict)
    label_smoothing: float = 0.0

    def tensors(self) -> dict[str, Any]:
        """All tensors, in dictionaries alone."""
        return {
            "student": dict(self.student),
            "teacher": {bank: _parts(signal) for bank, signal in self.teacher.items()},
            "labels": self.labels_LB,
            "mixed": {bank: {"labels": m.labels_BK, "shares": m.shares_BK} for bank, m in self.mixed.items()},
        }


@dataclass(frozen=True)
class LaneLosses:
    """What `Losses` holds, of all lanes: L numbers each."""

    total_L: Tensor
    scalars: Mapping[str, Tensor]
    """Terms and gauges by name."""


class LaneObjective:
    """One objective for all lanes: computed at once where `torch.func` can map it, else lane by lane.

    Which of both is tried once for each set of hyper-parameters that the lanes differ in: an objective that
    asks, in Python, how large one of them is cannot be mapped over it.
    """

    def __init__(self) -> None:
        self._mapped: dict[frozenset[str], bool] = {}
        self._configs: Sequence[ObjectiveBase] = ()
        self._varied_L: dict[str, Tensor] = {}
        self._constants: Any = None

    def hold(self, configs: Sequence[ObjectiveBase], device: torch.device) -> bool:
        """Compute from now on with these hyper-parameters: the lanes' own, as they are in their epochs.

        Says whether a step that was recorded before may be replayed: it may where nothing has changed but
        numbers in which the lanes differ, since those lie in tensors that stay; see `ObjectiveBase.at`.

        Raises:
            TypeError: the lanes differ in something that is no number with a fraction.
        """
        lanes, varied = len(self._configs), _varied(configs, device)
        stays = lanes == len(configs) and varied.keys() == self._varied_L.keys()
        if stays:
            for name, numbers_L in varied.items():
                self._varied_L[name].copy_(numbers_L)
        else:
            self._varied_L = varied
        self._configs = list(configs)
        before, self._constants = self._constants, self._written_in()
        return stays and before == self._constants

    def __call__(self, signals: LaneSignals) -> LaneLosses:
        """The losses."""
        names = frozenset(self._varied_L)
        if names not in self._mapped:
            self._mapped[names] = _can_be_mapped(self._configs, signals)
            self._constants = self._written_in()
        if self._mapped[names]:
            return _at_once(self._configs[0], self._varied_L, signals)
        return _one_by_one(self._configs, signals)

    def _written_in(self) -> list[dict[str, Any]]:
        """What a recorded step holds as plain numbers, which it would keep."""
        if not self._mapped.get(frozenset(self._varied_L)):
            return [dict(config) for config in self._configs]
        return [{name: value for name, value in dict(self._configs[0]).items() if name not in self._varied_L}]


def _at_once(config: ObjectiveBase, varied: Mapping[str, Tensor], signals: LaneSignals) -> LaneLosses:
    def one(own: Mapping[str, Tensor], tensors: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        # Unchecked: each of the numbers was checked in a configuration of its own.
        losses = _losses(config.model_copy(update=dict(own)), tensors, signals.label_smoothing)
        return losses.total, {**losses.terms, **losses.gauges}

    in_dims = (0, 0) if varied else (None, 0)
    total_L, scalars = vmap(one, in_dims=in_dims)(dict(varied), signals.tensors())
    return LaneLosses(total_L, scalars)


def _one_by_one(configs: Sequence[ObjectiveBase], signals: LaneSignals) -> LaneLosses:
    tensors = signals.tensors()
    lanes = [_lane_of(tensors, lane) for lane in range(len(configs))]
    each = [_losses(*own, signals.label_smoothing) for own in zip(configs, lanes, strict=True)]
    scalars = [{**losses.terms, **losses.gauges} for losses in each]
    return LaneLosses(
        torch.stack([losses.total for losses in each]),
        {name: torch.stack([own[name] for own in scalars]) for name in scalars[0]},
    )


def _losses(config: ObjectiveBase, tensors: Mapping[str, Any], label_smoothing: float) -> Losses:
    """Of one lane, whose tensors these are."""
    signals = Signals(
        student=tensors["student"],
        teacher={bank: TeacherSignal(**parts) for bank, parts in tensors["teacher"].items()},
        labels_B=tensors["labels"],
        epoch=_EPOCH,
        mixed={bank: Mixing(m["labels"], m["shares"]) for bank, m in tensors["mixed"].items()},
        label_smoothing=label_smoothing,
        epochs=_EPOCH,
    )
    return build_objective(config)(signals)


def _varied(configs: Sequence[ObjectiveBase], device: torch.device) -> dict[str, Tensor]:
    """The numbers in which the lanes' hyper-parameters differ, L of each.

    Raises:
        TypeError: they differ in something that is no number with a fraction.
    """
    first = dict(configs[0])
    differ = [name for name in first if any(dict(config)[name] != first[name] for config in configs[1:])]
    for name in differ:
        if not isinstance(first[name], float):
            raise TypeError(f"the lanes of a pack differ in {name}, which has to be the same for all")
    return {
        name: torch.tensor([float(dict(config)[name]) for config in configs], device=device)
        for name in differ
    }


def _can_be_mapped(configs: Sequence[ObjectiveBase], signals: LaneSignals) -> bool:
    """Whether both ways give the same losses, and gradients, of these very signals."""
    expected = _with_gradients(_one_by_one, configs, signals)

    def at_once(configs: Sequence[ObjectiveBase], signals: LaneSignals) -> LaneLosses:
        return _at_once(configs[0], _varied(configs, signals.labels_LB.device), signals)

    try:
        found = _with_gradients(at_once, configs, signals)
    except Exception as error:  # noqa: BLE001  whatever functorch, or the objective under it, makes of what it cannot do
        log.info("the losses of this pack are computed lane by lane: %s", error)
        return False
    pairs = zip(found, expected, strict=True)
    return all(torch.allclose(one, two, rtol=_TOLERANCE, atol=1e-6, equal_nan=True) for one, two in pairs)


def _with_gradients(way: Any, configs: Sequence[ObjectiveBase], signals: LaneSignals) -> list[Tensor]:
    student = {bank: logits.detach().requires_grad_() for bank, logits in signals.student.items()}
    apart = LaneSignals(student, signals.teacher, signals.labels_LB, signals.mixed, signals.label_smoothing)
    losses: LaneLosses = way(configs, apart)
    gradients = torch.autograd.grad(losses.total_L.sum(), list(student.values()), allow_unused=True)
    named = [losses.scalars[name].float() for name in sorted(losses.scalars)]
    return [losses.total_L.detach(), *named, *(g for g in gradients if g is not None)]


def _lane_of(tensors: Mapping[str, Any], lane: int) -> dict[str, Any]:
    return {
        name: _lane_of(value, lane) if isinstance(value, Mapping) else value[lane]
        for name, value in tensors.items()
    }


def _parts(signal: TeacherSignal) -> dict[str, Tensor]:
    parts = {
        "logits_BC": signal.logits_BC,
        "confidence_B": signal.confidence_B,
        "logit_max_B": signal.logit_max_B,
    }
    return {name: part for name, part in parts.items() if part is not None}
