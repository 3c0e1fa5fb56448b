"""Controls that compute as much as their finalists: cross-entropy for more epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from orchestrator.config.schema import EqualCompute, ExperimentConfig
from orchestrator.records.compute import compute_over_ce, epochs_of_equal_compute, stretched
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.relations import LABELS_ALONE, control_of, may_control
from orchestrator.records.selection import group_trials
from orchestrator.search.trial_specs import PlannedControl, control_spec, own_recipe, varied_values
from trainables.config import OBJECTIVE_CONFIGS, TrialSpec

EPOCHS: Final = "training.epochs"


def controls_of_equal_compute_for(
    experiment: ExperimentConfig,
    *,
    search: str,
    finalists: Sequence[TrialRecord],
    controls: Sequence[TrialRecord],
) -> list[PlannedControl]:
    """The controls of equal compute of these completed finalists, each once; `controls` are completed too.

    Such a control has the recipe of the finalist's own control, the best of several by the selection split,
    stretched over the epochs in which cross-entropy computes as much. Finalists with one student and number
    of epochs share it where they compute as much as each other.
    """
    found: dict[str, PlannedControl] = {}
    students = [*controls, *finalists]
    for group in group_trials(finalists):
        finalist = group.records[0]
        epochs = epochs_of_equal_compute(finalist)
        wanted = epochs is not None and is_wanted(experiment.budget.equal_compute, finalist)
        if epochs is None or not wanted or not any(may_control(each, finalist) for each in students):
            continue
        own = TrialSpec.from_plain(finalist.spec)
        recipe = TrialSpec.from_plain(control_of(finalist, students).records[0].spec).training
        training = stretched(own_recipe(experiment, recipe), epochs)
        spec = control_spec(search, own.student, training, own.rank_by)
        # The epochs are told even where the search does not vary them: they are what is other in it.
        parameters = {**varied_values(finalist.parameters, spec), EPOCHS: epochs}
        found.setdefault(spec.trial_id, PlannedControl(spec, parameters))
    return list(found.values())


def is_uncounted(mode: EqualCompute, finalist: TrialRecord) -> bool:
    """Whether it may ask for such a control, and nobody knows: what it computes was not counted."""
    alone = finalist.objective == LABELS_ALONE
    return not alone and compute_over_ce(finalist) is None and is_wanted(mode, finalist)


def uncounted(mode: EqualCompute, finalists: Sequence[TrialRecord]) -> list[str]:
    """A sentence about each set of finalists of which that is true."""
    firsts = [group.records[0] for group in group_trials(finalists)]
    return [
        f"{first.repeats or first.trial} has no control of equal compute: what its training computes is not "
        "known; the log of its slot says why it could not be counted, unless an earlier version trained it"
        for first in firsts
        if is_uncounted(mode, first)
    ]


def is_wanted(mode: EqualCompute, finalist: TrialRecord) -> bool:
    """Whether the experiment asks for such a control of this finalist, if that computes more."""
    if mode is EqualCompute.AUTO:
        return not OBJECTIVE_CONFIGS[finalist.objective]().hears_teacher
    return mode is EqualCompute.ALWAYS
