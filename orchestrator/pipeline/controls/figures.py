"""What the summary says of a finalist beside the controls that it is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.config.schema import ExperimentConfig
from orchestrator.pipeline.controls.equal_compute import is_uncounted
from orchestrator.records.compute import stretched
from orchestrator.records.costs import StudentCosts
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.relations import (
    control_of,
    controls_of,
    controls_of_equal_compute,
    repeated_trial,
    smoothed_controls_of,
)
from orchestrator.records.selection import Figures, Group, seed_of
from orchestrator.records.student_figures import Beside, Control, Finalist, control_students, finalist_of
from orchestrator.search.trial_specs import file_recipe, own_recipe, varied_values
from trainables.config import TrialSpec

Gain = tuple[str, float]
"""The student of a control with a finalist's seed, and the finalist's gain over it; a fraction."""


@dataclass(frozen=True)
class Compared:
    """Finalists and controls with what was found of them."""

    experiment: ExperimentConfig
    students: Sequence[TrialRecord]
    """Controls, and finalists."""
    tested: Figures
    """Of the test split, by trial id."""
    costs: Mapping[str, StudentCosts]
    """By trial id."""
    searched: Sequence[TrialRecord] = ()
    """Trials of the search, of which finalists repeat some."""

    def finalist(self, group: Group) -> Finalist:
        """A finalist with its controls: of equal epochs, and of equal compute where there is one."""
        record = group.records[0]
        controls = [self._control(each, group) for each in controls_of(record, self.students)]
        smoothed = [self._control(each, group) for each in smoothed_controls_of(record, self.students)]
        longer = [self._control(each, group) for each in controls_of_equal_compute(record, self.students)]
        return finalist_of(
            group,
            controls,
            self.tested,
            self.costs[record.trial],
            beside=Beside(
                same_compute=longer[0] if longer else None,
                smoothed=smoothed[0] if smoothed else None,
                search_score=repeated_trial(record, self.searched).score if self.searched else None,
            ),
            is_uncounted=is_uncounted(self.experiment.budget.equal_compute, record),
        )

    def _control(self, group: Group, finalist: Group) -> Control:
        record = group.records[0]
        spec = TrialSpec.from_plain(record.spec)
        training = own_recipe(self.experiment, spec.training)
        epochs = TrialSpec.from_plain(finalist.records[0].spec).training.epochs
        of_file = stretched(file_recipe(self.experiment, epochs=epochs), training.epochs)
        return control_students(
            group,
            self.tested,
            self.costs[record.trial],
            varied=varied_values(finalist.parameters, spec),
            recipe="experiment" if training == of_file else "search",
        )


def gains_over_controls(
    finalists: Sequence[TrialRecord], students: Sequence[TrialRecord], tests: Mapping[str, float]
) -> dict[str, Gain]:
    """By finalist what it gains over its control with its seed, where there is one; `tests` is by trial."""
    found = {each.trial: _gain(each, control_of(each, students), tests) for each in finalists}
    return {trial: gain for trial, gain in found.items() if gain is not None}


def gains_at_equal_compute(
    finalists: Sequence[TrialRecord], students: Sequence[TrialRecord], tests: Mapping[str, float]
) -> dict[str, Gain]:
    """The same over the control of equal compute; without the finalists that have none."""
    found: dict[str, Gain | None] = {}
    for finalist in finalists:
        for group in controls_of_equal_compute(finalist, students)[:1]:
            found[finalist.trial] = _gain(finalist, group, tests)
    return {trial: gain for trial, gain in found.items() if gain is not None}


def _gain(finalist: TrialRecord, control: Group, tests: Mapping[str, float]) -> Gain | None:
    by_seed: dict[int, Any] = {seed_of(record): record.trial for record in control.records}
    beside = by_seed.get(seed_of(finalist))
    return None if beside is None else (beside, tests[finalist.trial] - tests[beside])
