"""Whether there is a finished search to pick from, whether slots have work left, and who is picked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.config.figures import ACCURACY, figures_named
from orchestrator.pipeline.basis.basis import recorded_basis
from orchestrator.pipeline.context import Run
from orchestrator.pipeline.controls.planned import to_repeat, to_repeat_longer
from orchestrator.pipeline.finalists import (
    chosen_finalists,
    constraints_of,
    known_costs,
    tested_before,
)
from orchestrator.pipeline.finished import no_search
from orchestrator.records.compute import compute_over_ce
from orchestrator.records.costs import StudentCosts, numbers_of
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.picking.champion import Ranking, choose_champion, group_figures, trial_figures
from orchestrator.records.picking.picked import Picked, placed
from orchestrator.records.relations import control_of
from orchestrator.records.selection import (
    Group,
    SelectedChampion,
    group_trials,
    paired_difference,
    rank_trials,
)
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
    return not (wanted <= done | failed and done <= tested_before(run, {search}, {}).keys())


@dataclass(frozen=True)
class Choice:
    """The champion, and by what it was chosen."""

    champion: SelectedChampion
    picked: Picked


def choose(
    run: Run,
    *,
    searched: Sequence[TrialRecord],
    finalists: Sequence[TrialRecord],
    controls: Sequence[TrialRecord],
    costs: Mapping[str, StudentCosts],
) -> Choice:
    """The champion that the experiment asks for, among completed finalists, by the selection split alone.

    Raises:
        NobodyFits: none of them meets the constraints.
        StillhouseError: there is none, or none has the figures that are asked for.
    """
    pick, figures = run.experiment.pick, numbers_of(costs)
    ranking = Ranking(pick.rank or ACCURACY, figures_named(pick.pareto) if pick.pareto else ())
    groups = group_trials(finalists)
    for group in groups:
        figures[group.representative.trial] |= _beyond_costs(group, [*controls, *finalists])
    champion = choose_champion(groups, figures, constraints_of(run), ranking)
    picked = Picked(where=pick.where, rank=ranking.by, pareto=ranking.pareto, tie=champion.tie)
    if ranking.pareto:
        of_groups = {g.representative.trial: group_figures(g, figures) for g in groups}
        of_trials = {r.trial: trial_figures(r, figures) for r in rank_trials(searched)}
        picked = picked.with_overrides(
            finalists=placed(of_groups, ranking), trials=placed(of_trials, ranking)
        )
    return Choice(champion, picked)


def _beyond_costs(group: Group, students: Sequence[TrialRecord]) -> dict[str, float]:
    """Its gain on the selection split, where it has a control but itself, and what its epochs compute."""
    compute = compute_over_ce(group.records[0])
    found = {} if compute is None else {"compute_over_ce": compute}
    control = control_of(group.records[0], students)
    if {record.trial for record in control.records} & {record.trial for record in group.records}:
        return found
    if not set(control.seeds) & set(group.seeds):
        return found
    own, its = (dict(zip(each.seeds, each.scores, strict=True)) for each in (group, control))
    gain = paired_difference(own, its)
    found["selection_gain"] = gain.mean
    return found if gain.low is None else {**found, "selection_gain_low": gain.low}
