"""Whether there is a finished search to pick from, and whether slots have anything left to do."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.pipeline.cache_stage import cache_identity
from orchestrator.pipeline.context import Run
from orchestrator.pipeline.finalists import chosen_finalists, known_costs, tested_before
from orchestrator.pipeline.finished import no_search
from orchestrator.pipeline.teacher_stage import recorded_teacher
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.relations import control_of, repeated_trial
from trainables.config import Role, digest_of
from trainables.errors import StillhouseError


def search_stage_key(run: Run, search: str) -> str:
    """The key of the stage `search`: a larger budget of trials is more of the same search."""
    return digest_of([search, run.experiment.budget.trials])


def require_search(run: Run) -> None:
    """Refuse to pick where this very search was never finished; nothing is made or started to find out.

    Raises:
        ConfigError: it was not.
    """
    teacher = recorded_teacher(run)
    if teacher is not None:
        search = run.search_key(teacher, cache_identity(run, teacher))
        if run.stages.is_finished("search", search_stage_key(run, search)):
            return
    raise no_search(run.loaded)


def slots_are_needed(run: Run, search: str) -> bool:
    """Whether any student is still to be trained, measured or tested, as far as the ledger tells.

    Raises:
        StillhouseError: none of the students of a finished search meets the constraints.
    """
    if not run.stages.is_finished("search", search_stage_key(run, search)):
        return True
    records = run.ledger.trials(search=search, role=Role.SEARCH)
    costs = known_costs(run, search, [record for record in records if record.status == "completed"])
    if costs is None:
        return True
    tested = tested_before(run, {search})
    for chosen in chosen_finalists(run, records, costs):
        students = _repetitions(run, chosen, records)
        if students is None or not {student.trial for student in students} <= tested.keys():
            return True
    return False


def _repetitions(run: Run, chosen: TrialRecord, searched: Sequence[TrialRecord]) -> list[TrialRecord] | None:
    """The students that repeat a trial, and those of their control; none where a seed of some is missing."""

    def completed(role: Role) -> list[TrialRecord]:
        found = run.ledger.trials(search=chosen.search, role=role)
        return [record for record in found if record.status == "completed"]

    finalists = [r for r in completed(Role.FINALIST) if repeated_trial(r, searched).trial == chosen.trial]
    try:
        controls = {
            record.trial: record
            for finalist in finalists
            for record in control_of(finalist, completed(Role.BASELINE)).records
        }
    except StillhouseError:  # no student of a control was completed
        return None
    seeds = run.experiment.budget.seeds
    enough = len(finalists) >= seeds and len(controls) >= seeds
    return [*finalists, *controls.values()] if enough else None
