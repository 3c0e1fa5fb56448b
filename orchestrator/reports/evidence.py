"""What is known of each objective: rows of a table, over several seeds, with the controls beside them."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from orchestrator.records.selection import PairedDifference
from trainables.config.metrics import RankBy


@dataclass(frozen=True)
class Evidence:
    """One objective with one set of hyper-parameters, over its seeds; test accuracies in per cent."""

    objective: str
    parameters: dict[str, Any]
    """The searched values that are not the objective's defaults."""
    accuracies: tuple[float, ...]
    """By seed, ascending."""
    interval: tuple[float, float] | None
    """95 % t-interval of their mean; none with one seed."""
    over_ce: PairedDifference | None
    """In points, to its control; none for a control itself."""
    over_kd: PairedDifference | None
    """In points, to KD at its defaults with the same student and recipe, or at its best where all are; none
    for that itself, and where no such student was trained."""
    agreement: float | None
    """Mean share, in per cent, of test images that get the teacher's class."""
    ece: float
    """Mean expected calibration error, in per cent."""
    over_same_compute: PairedDifference | None
    """In points, to cross-entropy for as many epochs as compute what this did; none where its epochs compute
    little more than cross-entropy's, or no such student was trained."""
    epochs: int | None
    """Of its training."""
    epoch_over_ce: float
    """Median seconds of an epoch over its control's."""
    lacks_own_control: bool
    """Its control has another architecture or number of epochs, in a ledger of an earlier version."""

    @property
    def mean(self) -> float:
        """Mean test accuracy, in per cent."""
        return statistics.fmean(self.accuracies)

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1) of the test accuracies, in points."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None


@dataclass(frozen=True)
class Failed:
    """Seeds of one objective with one set of hyper-parameters that no row has a part of."""

    objective: str
    parameters: dict[str, Any]
    reasons: tuple[str, ...]
    """Why, one for each."""


@dataclass(frozen=True)
class Controlled:
    """A control, and what is compared with it, best first."""

    control: Evidence
    beside: tuple[Evidence, ...]
    """Controls of the same architecture with other recipes."""
    finalists: tuple[Evidence, ...]
    """The control is one of them where a finalist learns from the labels alone."""
    longer: tuple[Evidence, ...] = ()
    """Controls of the same compute as some of them: cross-entropy for more epochs."""


@dataclass(frozen=True)
class SearchEvidence:
    """One search of the ledger: what it trained with several seeds, by control."""

    search: str
    trials: int
    """Students of the search itself."""
    student: dict[str, Any]
    """What the networks of all its finalists share, as plain data."""
    by_control: tuple[Controlled, ...]
    """The one with the best finalist first."""
    failures: tuple[Failed, ...] = ()
    is_tuned: bool = False
    """Each objective is there once, at the best of several trials of its own: KD too, which the others are
    compared with as it is then."""
    rank_by: RankBy = RankBy.ACCURACY
    """What all accuracies are of."""

    @property
    def groups(self) -> tuple[Evidence, ...]:
        """All finalists."""
        return tuple(finalist for controlled in self.by_control for finalist in controlled.finalists)
