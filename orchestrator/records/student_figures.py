"""What a summary says of students over their seeds: finalists, and the controls beside them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

from pydantic import Field

from orchestrator.records.compute import compute_over_ce, ensemble_accuracy, peers_accuracy, seconds_of
from orchestrator.records.costs import LATENCIES, StudentCosts, is_none
from orchestrator.records.picking.several_gains import Together, together
from orchestrator.records.selection import Figures, Group, PairedDifference, paired_difference
from trainables.config import Config
from trainables.config.metrics import RankBy

Recipe = Literal["experiment", "search"]
"""Whose recipe a control was trained with: the experiment file's, or one that the search found."""


class Students(Config):
    """One set of hyper-parameters over several seeds; lists are in the order of the seeds.

    Accuracies are fractions, and of the kind that ranks students: see `rank_by` of the summary. A standard
    deviation is that of the sample (n - 1), none for one seed.
    """

    trials: tuple[str, ...] = Field(min_length=1)
    objective: str
    seeds: tuple[int, ...]
    selection_accuracies: tuple[float, ...]
    test_accuracies: tuple[float, ...]
    selection_mean: float
    selection_std: float | None
    test_mean: float
    test_std: float | None
    params: int
    size_bytes: int
    latency_ms: float
    latency_p95_ms: float | None = Field(None, description="none in a record of an earlier version")
    latency_device: str | None = Field(None, description="measured on it; none as above")
    latency_64_ms: float | None = Field(
        None,
        description="median of a whole batch of 64; none as above, and where it did not fit the GPU",
        exclude_if=is_none,
    )
    latency_64_p95_ms: float | None = Field(
        None, description="95th percentile of such a batch", exclude_if=is_none
    )
    latency_threads: int | None = Field(
        None, description="of a CPU that computed; none as above", exclude_if=is_none
    )
    precision: str | None = Field(
        None, description="what they were trained in, and what chose that; none in a record as above"
    )
    test_nll: float | None = Field(None, description="mean over the seeds, nats; none as above")
    test_ece: float | None = Field(None, description="mean over the seeds; none as above")
    test_agreement: float | None = Field(
        None, description="with the teacher, mean over the seeds; none as above, and without its network"
    )
    test_balanced_accuracy: float | None = Field(
        None, description="mean over the seeds, where classes are uneven; none elsewhere, and as above"
    )
    test_own_accuracy: float | None = Field(
        None,
        description="of the students' own answers, mean over the seeds, where another figure ranks them",
        exclude_if=is_none,
    )
    answered_classes: int | None = Field(
        None, description="different answers to the test split, of the seed with the fewest; none as above"
    )

    epochs: int | None = Field(
        None, description="that they were trained for; none as above", exclude_if=is_none
    )
    seconds: float | None = Field(
        None, description="of a training, mean over the seeds; none as above", exclude_if=is_none
    )
    compute_over_ce: float | None = Field(
        None,
        description="operations of an epoch over those of cross-entropy with the same student; none as above",
        exclude_if=is_none,
    )
    peers_selection_mean: float | None = Field(
        None,
        description="accuracy of the networks trained beside them, mean over networks and seeds; they rank "
        "nothing and are not shipped; none where there were none",
        exclude_if=is_none,
    )
    ensemble_selection_mean: float | None = Field(
        None,
        description="accuracy of student and peers as one, mean over the seeds; as above",
        exclude_if=is_none,
    )

    @property
    def compute_epochs(self) -> float | None:
        """In how many epochs cross-entropy computes as much as one training; none where not known."""
        if self.epochs is None or self.compute_over_ce is None:
            return None
        return self.epochs * self.compute_over_ce

    @property
    def answers_one_class(self) -> bool:
        """Whether a seed gives every image of the test split the same class."""
        return self.answered_classes == 1


class Control(Students):
    """Students that learn from labels alone, with the architecture and epochs of those compared with them."""

    hyper_parameters: dict[str, Any] = Field(
        {}, description="what the search varied of student and recipe, as these students have it"
    )
    recipe: Recipe = Field("experiment", description="the experiment file's, or one that the search found")


class Comparison(Config):
    """What a finalist gains over the same students without a teacher, with the same seeds."""

    control: Control
    selection_gain: PairedDifference
    test_gain: PairedDifference


class Finalist(Students):
    """A finalist, and what it gains over its own control."""

    hyper_parameters: dict[str, Any]
    control: Control = Field(
        description="of those with its architecture and epochs the best, by the selection split alone"
    )
    selection_gain: PairedDifference = Field(description="over `control`")
    test_gain: PairedDifference = Field(description="over `control`")
    beside: tuple[Comparison, ...] = Field((), description="controls with other recipes, best first")
    same_compute: Comparison | None = Field(
        None,
        description="cross-entropy for as many epochs as compute what this finalist's training did; none "
        "where an epoch of it costs little more, and where no such control was trained",
        exclude_if=is_none,
    )
    smoothed: Comparison | None = Field(
        None,
        description="over the best of the controls with label smoothing; none where none were trained",
        exclude_if=is_none,
    )
    search_score: float | None = Field(
        None,
        description="on the selection split, of the trial of the search that was chosen for it, with one "
        "seed; none in a record of an earlier version",
        exclude_if=is_none,
    )
    together: Together | None = Field(
        None,
        description="its test gain beside those of the other finalists; none where no other has one",
        exclude_if=is_none,
    )
    is_uncounted: bool = Field(
        False,
        description="whether it may ask for such a control, and nobody knows: what it computes is not known",
        exclude_if=lambda value: not value,
    )

    @property
    def is_own_control(self) -> bool:
        """Whether it learns from labels alone, and none of its architecture is better."""
        return self.trials == self.control.trials

    @property
    def lacks_own_control(self) -> bool:
        """Whether an earlier version compared it with students of another architecture or length."""
        same = [n for n in self.hyper_parameters if n.startswith("student.") or n == "training.epochs"]
        return any(self.hyper_parameters[n] != self.control.hyper_parameters.get(n) for n in same)


def control_students(
    group: Group,
    tested: Figures,
    costs: StudentCosts,
    *,
    varied: Mapping[str, Any] = MappingProxyType({}),
    recipe: Recipe = "experiment",
) -> Control:
    """A control: its group, figures of the test split by trial id, its costs, and what was varied."""
    return Control(**_students(group, tested, costs), hyper_parameters=dict(varied), recipe=recipe)


@dataclass(frozen=True)
class Beside:
    """What else stands beside a finalist; none where there is none."""

    same_compute: Control | None = None
    """A control that was trained with as much compute."""
    smoothed: Control | None = None
    """A control with label smoothing."""
    search_score: float | None = None
    """Of the trial of the search that it repeats."""


NOTHING_BESIDE: Final = Beside()


def finalist_of(
    group: Group,
    controls: Sequence[Control],
    tested: Figures,
    costs: StudentCosts,
    *,
    beside: Beside = NOTHING_BESIDE,
    is_uncounted: bool = False,
) -> Finalist:
    """A finalist beside its control, the first, and those with other recipes; `tested` is by trial id.

    `is_uncounted` says that there may be no control of the same compute because nobody knows what the
    finalist computes.
    """
    students = Students(**_students(group, tested, costs))
    recipes = [c for c in controls[1:] if c.trials != students.trials and set(c.seeds) & set(students.seeds)]
    return Finalist(
        **dict(students),
        hyper_parameters=group.parameters,
        **dict(_compared(students, controls[0])),
        beside=tuple(_compared(students, control) for control in recipes),
        same_compute=_over(students, beside.same_compute),
        smoothed=_over(students, beside.smoothed),
        search_score=beside.search_score,
        is_uncounted=is_uncounted,
    )


def taken_together(finalists: Sequence[Finalist]) -> list[Finalist]:
    """The finalists with what is to be said of their test gains when all are looked at."""
    found = together([None if each.is_own_control else each.test_gain for each in finalists])
    return [each.with_overrides(together=one) for each, one in zip(finalists, found, strict=True)]


def _over(students: Students, control: Control | None) -> Comparison | None:
    if control is None or not set(control.seeds) & set(students.seeds):
        return None
    return _compared(students, control)


def _students(group: Group, tested: Figures, costs: StudentCosts) -> dict[str, Any]:
    found = [tested[record.trial] for record in group.records]
    by_seed = [figures[group.rank_by] for figures in found]
    answered = [figures["answered_classes"] for figures in found if "answered_classes" in figures]
    own = _mean([figures.get(RankBy.ACCURACY) for figures in found])
    means = ("nll", "ece", "agreement", "balanced_accuracy")
    return {
        **{f"test_{name}": _mean([figures.get(name) for figures in found]) for name in means},
        "answered_classes": int(min(answered)) if answered else None,
        "test_own_accuracy": own if group.rank_by.is_of_features else None,
        "trials": tuple(record.trial for record in group.records),
        "objective": group.objective,
        "seeds": group.seeds,
        "selection_accuracies": group.scores,
        "test_accuracies": tuple(by_seed),
        "precision": " and ".join(dict.fromkeys(r.precision for r in group.records if r.precision)) or None,
        "selection_mean": group.mean,
        "selection_std": group.std,
        "test_mean": statistics.fmean(by_seed),
        "test_std": statistics.stdev(by_seed) if len(by_seed) > 1 else None,
        "params": int(costs.params),
        "size_bytes": int(costs.size_bytes),
        **{name: getattr(costs, name) for name in LATENCIES},
        "latency_threads": costs.latency_threads and int(costs.latency_threads),
        "epochs": group.records[0].spec.get("training", {}).get("epochs"),
        "seconds": seconds_of(group.records),
        "compute_over_ce": compute_over_ce(group.records[0]),
        "peers_selection_mean": _mean([peers_accuracy(record.best) for record in group.records]),
        "ensemble_selection_mean": _mean([ensemble_accuracy(record.best) for record in group.records]),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    """Their mean; none where one is not known."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def _compared(students: Students, control: Control) -> Comparison:
    return Comparison(
        control=control,
        selection_gain=paired_difference(
            _by_seed(students, students.selection_accuracies), _by_seed(control, control.selection_accuracies)
        ),
        test_gain=paired_difference(
            _by_seed(students, students.test_accuracies), _by_seed(control, control.test_accuracies)
        ),
    )


def _by_seed(students: Students, values: Sequence[float]) -> dict[int, float]:
    return dict(zip(students.seeds, values, strict=True))
