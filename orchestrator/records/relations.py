"""Which student repeats which, and which control a finalist is compared with.

Both are fields of the event that starts a student. A ledger of an earlier version lacks them, and is read by
these rules: a finalist repeats the completed trial of its search whose specification is the same but for what
a repetition has of its own, and it is compared with the control that its search began with, the only one that
such a version trained. A control of such a ledger has the name that follows from its specification, so that a
finalist which a later version added to the ledger finds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from orchestrator.records.costs import StudentCosts
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.selection import Group, group_trials, rank_trials
from orchestrator.records.trial_names import control_name
from trainables.errors import StillhouseError

CONTROL: Final = "control"
"""Under this name the costs of the control's student stand beside those of searched trials."""
OWN_FIELDS: Final = frozenset({"trial_id", "role", "seed", "fork", "keep_states"})
"""What a repetition's specification does not share with that of the trial that it repeats."""


def repeated_trial(finalist: TrialRecord, searched: Sequence[TrialRecord]) -> TrialRecord:
    """The searched trial that a finalist trains again, with another seed.

    In a ledger of an earlier version several trials may have the same specification, as forks do: then it is
    the best of them, since the best was chosen.

    Raises:
        StillhouseError: there is no such trial.
    """
    if finalist.repeats is not None:
        found = [record for record in searched if record.trial == finalist.repeats]
        what = f"trial {finalist.repeats}, which it repeats"
    else:
        same = [record for record in searched if record.search == finalist.search]
        found = rank_trials([record for record in same if _shared(record) == _shared(finalist)])
        what = "completed trial with the specification that it repeats"
    if not found:
        raise StillhouseError(
            f"finalist {finalist.trial}: the ledger has no {what}; restore the ledger, or run the "
            "experiment into another folder"
        )
    return found[0]


def control_of(finalist: TrialRecord, controls: Sequence[TrialRecord]) -> Group:
    """The control that a finalist is compared with, over its seeds; `controls` are students of all controls.

    Raises:
        StillhouseError: no student of it was completed.
    """
    of_search = [record for record in controls if record.search == finalist.search]
    names = [record.repeats or control_name(record.search, record.spec) for record in of_search]
    wanted = finalist.control or next(iter(names), None)
    own = [record for record, name in zip(of_search, names, strict=True) if name == wanted]
    groups = group_trials(own)
    if not groups:
        raise StillhouseError(
            f"finalist {finalist.trial} cannot be compared: no student of control "
            f"{finalist.control or 'of its search'} was completed; run the experiment again"
        )
    return groups[0]


def with_repetitions(
    costs: Mapping[str, StudentCosts],
    *,
    searched: Sequence[TrialRecord],
    finalists: Sequence[TrialRecord],
    controls: Sequence[TrialRecord],
) -> dict[str, StudentCosts]:
    """Costs of searched trials and `CONTROL`, with those of the students that repeat them added.

    Raises:
        StillhouseError: a finalist repeats no trial of the ledger, or one without costs.
    """
    every = dict(costs)
    for finalist in finalists:
        origin = repeated_trial(finalist, searched).trial
        if origin not in costs:
            raise StillhouseError(
                f"trial {origin} was never profiled, so the costs of finalist {finalist.trial} are not known"
            )
        every[finalist.trial] = costs[origin]
    return every | {record.trial: costs[CONTROL] for record in controls}


def _shared(record: TrialRecord) -> dict[str, Any]:
    return {name: value for name, value in record.spec.items() if name not in OWN_FIELDS}
