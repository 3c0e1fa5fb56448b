"""Whether there is a finished search to pick from, and whether slots have anything left to do."""

from __future__ import annotations

from collections.abc import Collection

from orchestrator.pipeline.basis.basis import recorded_basis
from orchestrator.pipeline.context import Run
from orchestrator.pipeline.controls.planned import to_repeat, to_repeat_longer
from orchestrator.pipeline.finalists import (
    chosen_finalists,
    known_costs,
    tested_before,
)
from orchestrator.pipeline.finished import no_search
from orchestrator.pipeline.shipped.aware_training import STAGE as AWARE
from orchestrator.pipeline.shipped.aware_training import aware_key
from orchestrator.search.trial_specs import repeat_specs
from trainables.config import Role, digest_of
from trainables.training.train_teacher import TeacherFacts


def search_stage_key(run: Run, search: str) -> str:
    """The key of the stage `search`: a larger budget of trials is more of the same search."""
    return digest_of([search, run.experiment.budget.trials])


def require_search(run: Run) -> None:
    """Refuse to pick where this very search was never finished; nothing is made or started to find out.

    Raises:
        ConfigError: it was not.
    """
    basis = recorded_basis(run)
    if basis is not None and run.stages.is_finished("search", search_stage_key(run, basis.search(run))):
        return
    raise no_search(run.loaded)


def slots_are_needed(run: Run, search: str, teacher: TeacherFacts | None = None) -> bool:
    """Whether any student is still to be trained, measured or tested, as far as the ledger tells.

    `teacher` is the one that they hear: of several, each is measured beside students.

    Raises:
        StillhouseError: none of the students of a finished search meets the constraints.
    """
    if not run.stages.is_finished("search", search_stage_key(run, search)):
        return True
    records = run.ledger.trials(search=search, role=Role.SEARCH)
    completed = [record for record in records if record.status == "completed"]
    costs = known_costs(run, search, completed, teacher)
    if costs is None:
        return True
    chosen = chosen_finalists(run, records, costs)
    specs = [spec for spec, _ in to_repeat(run, search, chosen)]
    specs += [spec for spec, _ in to_repeat_longer(run, search, specs)]
    wanted = {again.trial_id for spec in specs for again in repeat_specs(spec, run.experiment)}
    trained = {r.trial: r.status for r in run.ledger.trials(search=search) if r.trial in wanted}
    done = {trial for trial, status in trained.items() if status == "completed"}
    failed = {trial for trial, status in trained.items() if status == "failed"}
    is_done = wanted <= done | failed and done <= tested_before(run, {search}, {}).keys()
    return not is_done or _is_to_be_quantised(run, search, done)


def _is_to_be_quantised(run: Run, search: str, students: Collection[str]) -> bool:
    """Whether one of these may be trained on for int8, should it be the champion, and was not yet."""
    settings = run.experiment.export.aware
    if settings is None:
        return False
    finalists = run.ledger.trials(search=search, role=Role.FINALIST)
    keys = [aware_key(run, record, settings) for record in finalists if record.trial in students]
    return not all(run.stages.is_finished(AWARE, key) for key in keys)
