"""What is trained with several seeds after a search: finalists, their controls, those of equal compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.pipeline.context import Run
from orchestrator.pipeline.controls.equal_compute import controls_of_equal_compute_for
from orchestrator.records.ledger import TrialRecord
from orchestrator.search.trial_specs import controls_for, repeat_specs
from trainables.config import Role, TrialSpec


@dataclass(frozen=True)
class Start:
    """What the ledger notes of a student beside its job."""

    parameters: Mapping[str, Any]
    repeats: str


Repeated = list[tuple[TrialSpec, Start]]
"""Students that are trained with every seed."""


def to_repeat(run: Run, search: str, chosen: Sequence[TrialRecord]) -> Repeated:
    """What is trained with several seeds: the controls of the chosen trials, then these."""
    searched = run.ledger.trials(search=search, role=Role.SEARCH)
    controls = controls_for(run.experiment, search=search, finalists=chosen, searched=searched)
    wanted = [(control.spec, Start(control.parameters, control.spec.trial_id)) for control in controls]
    return wanted + [(TrialSpec.from_plain(r.spec), Start(r.parameters, r.trial)) for r in chosen]


def longer_controls(
    run: Run, search: str, finalists: Sequence[TrialRecord], controls: Sequence[TrialRecord]
) -> Repeated:
    """The controls of equal compute of completed finalists, which have the recipe of their best controls."""
    planned = controls_of_equal_compute_for(
        run.experiment, search=search, finalists=finalists, controls=controls
    )
    return [(control.spec, Start(control.parameters, control.spec.trial_id)) for control in planned]


def to_repeat_longer(run: Run, search: str, first: Sequence[TrialSpec]) -> Repeated:
    """The same, as far as the ledger knows what `first` came to."""
    names = [again.trial_id for spec in first for again in repeat_specs(spec, run.experiment)]
    records = [record for name in names if (record := run.ledger.trial(name))]
    completed = [record for record in records if record.status == "completed"]
    of_role = {role: [record for record in completed if record.role is role] for role in Role}
    return longer_controls(run, search, of_role[Role.FINALIST], of_role[Role.BASELINE])
