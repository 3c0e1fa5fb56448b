"""How many students a slot trains at once, and in which form: what is fastest when it is tried."""

from __future__ import annotations

import gc
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch

from trainables.models.foreign.copies import copied
from trainables.training.course import Course
from trainables.training.loop import steps_alone
from trainables.training.packs.networks import Form, forms_of
from trainables.training.packs.pack import Pack, Ticket
from trainables.training.workbench import Workbench

MOST_LANES: Final = {"cpu": 32, "cuda": 128}
"""By the device's type: beyond, the last doublings gained nothing where it was tried."""
LEAST_GAIN: Final = 1.1
"""Students a second, over one by one: for less, training alone is kept, which is the same to the last bit."""
_ENOUGH: Final = 0.95
"""Of the best rate: the fewest lanes that reach so much of it are taken."""
_FALLS: Final = 0.85
"""Of the best rate: where twice the lanes give less, more are not tried."""
_STEPS: Final = 3
LONG_STEP_S: Final = 0.2
"""A device that is busy with one student for so long a step gains nothing by several."""
_HOPELESS: Final = 1.5
"""Times as long as one by one: a pack that is slower by so much is not timed again."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PackChoice:
    """How a slot trains students of one shape."""

    lanes: int = 1
    form: Form | None = None
    """None: alone."""

    def __str__(self) -> str:
        """As ledger and slots pass it on: `8 grouped`, or `1 alone`."""
        return f"{self.lanes} {self.form or 'alone'}"

    @classmethod
    def read(cls, text: str) -> PackChoice:
        """What `str` wrote."""
        lanes, _, form = text.partition(" ")
        return cls(int(lanes), None if form == "alone" else Form(form))


ALONE: Final = PackChoice()


def fastest(
    course: Course, workbench: Workbench, *, most: int | None = None, exactly: bool = False
) -> PackChoice:
    """Time a few steps with 1, 2, 4, 8 ... lanes, at most `most`, and take what trains most students.

    With `exactly`, so many lanes are taken in the faster form, whatever is faster alone. The course stays as
    it is; what is trained are copies.
    """
    most = most or MOST_LANES.get(workbench.device.type, MOST_LANES["cpu"])
    alone_s = math.inf if exactly else _alone_s(course, workbench)
    if most == 1 or LONG_STEP_S < alone_s < math.inf:
        return ALONE
    forms = forms_of(course.model, workbench.input_shape)
    counts = [most] if exactly else [2**power for power in range(1, most.bit_length()) if 2**power <= most]
    rates = _rates(_Timed(course, workbench, alone_s), forms, counts)
    best = max(rates.values(), default=0.0)
    if not best or best < LEAST_GAIN / alone_s:
        return ALONE
    return min((c for c, rate in rates.items() if rate >= _ENOUGH * best), key=lambda choice: choice.lanes)


@dataclass(frozen=True)
class _Timed:
    """What is timed, and how long one of its steps takes alone."""

    course: Course
    workbench: Workbench
    alone_s: float

    def packed_s(self, form: Form, lanes: int) -> float:
        """Seconds of a pack's step."""
        tickets = [Ticket(_copy(self.course, number), lambda *_: None) for number in range(lanes)]
        pack = Pack(tickets[0], self.workbench, form)
        for ticket in tickets:
            pack.admit(ticket)
        return _least_s(pack.steps(), self.workbench.device, hopeless_s=_HOPELESS * lanes * self.alone_s)


def _rates(timed: _Timed, forms: Sequence[Form], counts: Sequence[int]) -> dict[PackChoice, float]:
    """Students' steps a second: of the first form by lanes, and of the others from its best number on."""
    found: dict[PackChoice, float] = {}
    for form in forms:
        best = max(found, key=lambda choice: found[choice]).lanes if found else 0
        found |= _rising(timed, form, [lanes for lanes in counts if lanes >= best])
    return found


def _rising(timed: _Timed, form: Form, counts: Sequence[int]) -> dict[PackChoice, float]:
    """By lanes, until more of them give clearly less, or find no memory."""
    found: dict[PackChoice, float] = {}
    for lanes in counts:
        try:
            rate = lanes / timed.packed_s(form, lanes)
        except torch.OutOfMemoryError:
            log.info("%d lanes do not fit into the memory of the device", lanes)
            break
        finally:
            gc.collect()
        highest = max(found.values(), default=0.0)
        found[PackChoice(lanes, form)] = rate
        if rate < _FALLS * highest:
            break
    return found


def _alone_s(course: Course, workbench: Workbench) -> float:
    return _least_s(steps_alone(_copy(course, 0), workbench), workbench.device, hopeless_s=LONG_STEP_S)


def _least_s(step: Callable[[], None], device: torch.device, *, hopeless_s: float) -> float:
    """Seconds of the fastest of some steps: what else the machine does only ever adds to one.

    Where the first of them takes longer than `hopeless_s`, it is the only one.
    """
    step()
    times: list[float] = []
    while len(times) < _STEPS and not (times and times[0] > hopeless_s):
        began = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return min(times)


def _copy(course: Course, number: int) -> Course:
    """The same course with weights of its own, and batches in another order."""
    return replace(course, model=copied(course.model), forward=None, tap=None, seed=course.seed + number)
