"""Networks that are trained together, each seen as the student that it is to the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from trainables.signals import Setting, Signals


@contextmanager
def as_the_student(setting: Setting, device: torch.device) -> Iterator[None]:
    """The context in which auxiliary modules compute: the student's own, whatever surrounds it."""
    with torch.autocast(device.type, enabled=False), setting.computing():
        yield


def each_network(signals: Signals) -> list[Signals]:
    """The signals as each network has them, the student first: its own answers stand as the student's.

    Raises:
        ValueError: no network is trained beside the student.
    """
    if not signals.peers:
        raise ValueError("the signals hold no peers; train one network or more beside the student")
    return [
        replace(signals, peers=()),
        *(replace(signals, student=p.logits, features=p.features, peers=()) for p in signals.peers),
    ]


def terms_of(values: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
    """Named terms of several networks: the student's under their own names, the peers' as `peer1_ce`."""
    named = {name: own[0].detach() for name, own in values.items()}
    for name, own in values.items():
        named |= {f"peer{number}_{name}": value.detach() for number, value in enumerate(own[1:], start=1)}
    return named
