"""Which student repeats which, and which control a finalist is compared with.

What a student repeats is a field of the event that starts it. A ledger of an earlier version may lack it;
then a finalist repeats the completed trial of its search whose specification is the same but for what a
repetition has of its own, and a control has the name that follows from its specification.

Whom a finalist is compared with follows from the specifications: with students that learn from the labels
alone and have its architecture, its resolution and its number of epochs. Of several recipes the one counts
that has the best mean on the selection split, where no gain is then larger than it is over any other of them.
An earlier version trained one control for a whole search; where that has another architecture or number of
epochs, it is what the ledger offers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from orchestrator.records.compute import epochs_of_equal_compute
from orchestrator.records.costs import StudentCosts
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.selection import Group, group_of, rank_trials
from orchestrator.records.trial_names import control_name
from trainables.config import CeConfig, LsConfig, Role, digest_of
from trainables.errors import StillhouseError

LABELS_ALONE: Final = CeConfig().name
"""The objective of all controls."""
SMOOTHED: Final = LsConfig().name
"""The objective of controls with label smoothing."""
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


def setting_of(record: TrialRecord) -> list[Any]:
    """What a finalist and its control must have in common: network, with its resolution, and epochs."""
    return [record.spec.get("student"), record.spec.get("training", {}).get("epochs")]


def is_without_teacher(record: TrialRecord, search: str) -> bool:
    """Whether it is of a control of this search, or of a finalist that learns from the labels alone.

    One with label smoothing is no such control: it stands beside it.
    """
    if record.role is Role.BASELINE:
        return record.search == search and record.objective != SMOOTHED
    return record.search == search and record.objective == LABELS_ALONE


def may_control(record: TrialRecord, finalist: TrialRecord) -> bool:
    """Whether a student learns from the labels alone, in the search and the setting of a finalist."""
    return is_without_teacher(record, finalist.search) and setting_of(record) == setting_of(finalist)


def controls_of(finalist: TrialRecord, students: Sequence[TrialRecord]) -> list[Group]:
    """What a finalist may be compared with, each over its seeds; the first is its control.

    `students` are those of controls and finalists: a finalist that learns from the labels alone is one of
    them too, and then it may be its own control. One that lost a seed comes after those that did not: a mean
    over fewer seeds is more easily lucky.

    Raises:
        StillhouseError: no student of them was completed.
    """
    alike = [record for record in students if may_control(record, finalist)]
    groups = _by_name(alike or _of_an_earlier_version(finalist, students))
    if not groups:
        raise StillhouseError(
            f"finalist {finalist.trial} cannot be compared: no student without a teacher that has its "
            "architecture and epochs was completed; run the experiment again"
        )
    return _best_first(groups)


def controls_of_equal_compute(finalist: TrialRecord, students: Sequence[TrialRecord]) -> list[Group]:
    """What computes as much as a finalist and learns from the labels alone, with its student; the best first.

    None where an epoch of it costs little more than one of cross-entropy, and where no such student was
    completed.
    """
    wanted = [finalist.spec.get("student"), epochs_of_equal_compute(finalist)]
    if wanted[1] is None:
        return []
    alike = [each for each in students if is_without_teacher(each, finalist.search)]
    return _best_first(_by_name([each for each in alike if setting_of(each) == wanted]))


def smoothed_controls_of(finalist: TrialRecord, students: Sequence[TrialRecord]) -> list[Group]:
    """Controls of a finalist that were trained with label smoothing, the best first; none where none were."""
    alike = [
        each
        for each in students
        if each.role is Role.BASELINE and each.objective == SMOOTHED and each.search == finalist.search
    ]
    return _best_first(_by_name([each for each in alike if setting_of(each) == setting_of(finalist)]))


def control_of(finalist: TrialRecord, students: Sequence[TrialRecord]) -> Group:
    """The control that a finalist is compared with: the first of `controls_of`."""
    return controls_of(finalist, students)[0]


def with_repetitions(
    costs: Mapping[str, StudentCosts],
    *,
    searched: Sequence[TrialRecord],
    finalists: Sequence[TrialRecord],
    controls: Sequence[TrialRecord],
) -> dict[str, StudentCosts]:
    """Costs of searched trials, with those of the students added that repeat them or have their network.

    Raises:
        StillhouseError: a finalist repeats no trial of the ledger, or one without costs; or no trial with
            costs has the network of a control.
    """
    every = dict(costs)
    for finalist in finalists:
        origin = repeated_trial(finalist, searched).trial
        if origin not in costs:
            raise StillhouseError(
                f"trial {origin} was never profiled, so the costs of finalist {finalist.trial} are not known"
            )
        every[finalist.trial] = costs[origin]
    networks = {_network(record): costs[record.trial] for record in searched if record.trial in costs}
    for control in controls:
        if _network(control) not in networks:
            raise StillhouseError(
                f"no trial with the network of control {control.trial} was profiled, so its costs are not "
                "known"
            )
        every[control.trial] = networks[_network(control)]
    return every


def _best_first(groups: Sequence[Group]) -> list[Group]:
    return sorted(groups, key=lambda group: (-group.n, -group.mean))


def _by_name(records: Sequence[TrialRecord]) -> list[Group]:
    members: dict[tuple[Role, str], list[TrialRecord]] = {}
    for record in records:
        if rank_trials([record]):  # completed
            members.setdefault((record.role, _name(record)), []).append(record)
    return [group_of(group) for group in members.values()]


def _of_an_earlier_version(finalist: TrialRecord, students: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Students of the one control that such a version trained for a search."""
    if finalist.control is None and finalist.repeats is not None:
        return []
    controls = [r for r in students if r.search == finalist.search and r.role is Role.BASELINE]
    wanted = finalist.control or next(map(_name, controls), None)
    return [record for record in controls if _name(record) == wanted]


def _name(record: TrialRecord) -> str:
    return record.repeats or control_name(record.search, record.spec)


def _network(record: TrialRecord) -> str:
    return digest_of(record.spec["student"])


def _shared(record: TrialRecord) -> dict[str, Any]:
    return {name: value for name, value in record.spec.items() if name not in OWN_FIELDS}
