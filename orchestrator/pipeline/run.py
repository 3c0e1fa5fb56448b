"""The stages in their order: teacher and cache, or data; then search, finalists, test, export, report."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any

from orchestrator.config.loading import LoadedExperiment
from orchestrator.config.paths import out_folder, tracking_uri
from orchestrator.pipeline.basis.basis import Basis, basis_stages
from orchestrator.pipeline.brought_weights import pinned
from orchestrator.pipeline.cache_stage import cache_stage
from orchestrator.pipeline.context import Run
from orchestrator.pipeline.export import ChampionFigures, export_stage, register_stage
from orchestrator.pipeline.finalists import (
    chosen_finalists,
    constraints_of,
    finalists_stage,
    profile_stage,
    test_stage,
)
from orchestrator.pipeline.finished import STAGE, run_key
from orchestrator.pipeline.live_teacher import tell_live_teacher
from orchestrator.pipeline.picking import require_search, search_stage_key, slots_are_needed
from orchestrator.pipeline.preflight import preflight_stage
from orchestrator.pipeline.recorded_figures import record_figures
from orchestrator.pipeline.results import RunResults, finalists_of, write_up
from orchestrator.pipeline.shipped.aware_training import aware_stage
from orchestrator.pipeline.shipped.further_files import shipped_figures
from orchestrator.pipeline.stages import Stages
from orchestrator.pipeline.storage import storage_told
from orchestrator.pipeline.teachers.selection_answers import selection_answers
from orchestrator.pipeline.workers import Workers
from orchestrator.records.code_seen import note_code
from orchestrator.records.costs import numbers_of
from orchestrator.records.following.run_lock import locked
from orchestrator.records.ledger import Ledger
from orchestrator.records.picking.choice import Candidates, choose
from orchestrator.records.relations import with_repetitions
from orchestrator.records.summary import Summary
from orchestrator.search.driver import SearchTask, run_search
from orchestrator.search.trial_specs import Composer
from orchestrator.terminal.console import Console
from orchestrator.tracking.again import recorder_of
from orchestrator.tracking.moved_store import tell_of_move
from orchestrator.tracking.recorder import MlflowRecorder
from trainables.config import Role, SelectionAnswers, WorkbenchSpec
from trainables.errors import Interrupted, StillhouseError
from trainables.teacher.cache_build import CacheSummary
from trainables.tensors import threads_beside_slots

CLOSE_S = {"FINISHED": 120.0, "FAILED": 20.0, "KILLED": 5.0}


def run_experiment(
    loaded: LoadedExperiment, console: Console, *, resume_command: str, search_must_exist: bool = False
) -> Summary:
    """Run every stage that is not finished yet.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the state is saved, and the text names the command that goes on.
        ConfigError: `search_must_exist` and the search was never finished; or preflight found a problem.
        StillhouseError: a stage failed; running again goes on from there.
    """
    loaded, out = pinned(loaded), out_folder(loaded)
    with locked(out), closing(Ledger(out)) as ledger:
        workers = Workers(loaded.config, out, console)
        run = Run(loaded, out, ledger, Stages(ledger, console), workers, console)
        if search_must_exist:
            require_search(run)
        tell_of_move(loaded, console.info)
        for line in note_code(loaded.code, ledger):
            console.info(line)
        recorder = recorder_of(loaded, ledger, out)
        status, is_behind = "FAILED", False
        try:
            threads = threads_beside_slots(loaded.config.cluster.cpus_per_worker)
            with storage_told("run", ledger), threads, workers:
                if not search_must_exist:
                    preflight_stage(run)
                recorder.start()
                summary = _stages(run, recorder)
            status = "FINISHED"
            is_behind = summary.mlflow.lacks is not None
        except KeyboardInterrupt as error:
            status = "KILLED"
            raise Interrupted(f"interrupted; go on with: {resume_command}") from error
        finally:
            # On Ctrl-C people wait ten seconds at most; what MLflow lacks then, the next run writes.
            if recorder.is_started:
                patience_s = CLOSE_S["KILLED" if is_behind else status]
                recorder.close(status, timeout_s=patience_s)  # type: ignore[arg-type]
        return summary


def _stages(run: Run, recorder: MlflowRecorder) -> Summary:
    basis = basis_stages(run)
    search, teacher = basis.search(run), basis.teacher
    cache, compared = _teachers_answers(run, basis, search)
    workbench = run.workbench(cache, teacher=teacher).with_overrides(selection_answers=compared)
    _search_stage(run, workbench, search)
    records = run.ledger.trials(search=search, role=Role.SEARCH)
    completed = [record for record in records if record.status == "completed"]
    costs = profile_stage(run, workbench, search, completed, teacher)
    finalists, controls = finalists_stage(run, workbench, search, chosen_finalists(run, records, costs))
    costs = with_repetitions(costs, searched=records, finalists=finalists, controls=controls)
    chosen = choose(run.experiment.pick, Candidates(records, finalists, controls, numbers_of(costs)))
    champion = chosen.champion
    tested = test_stage(run, workbench, teacher, [*finalists, *controls])
    results = RunResults(
        basis=basis,
        cache=cache,
        records=records,
        finalists=finalists,
        controls=controls,
        champion=champion,
        picked=chosen.picked,
        costs=costs,
        tested=tested,
    )
    identity = cache.identity.digest() if cache else None
    exported = _exported(run, recorder, results, identity, workbench)
    registered = register_stage(
        run, recorder, champion, tracking_uri=tracking_uri(run.loaded), lineage=results.lineage(search)
    )
    return write_up(run, recorder, results, exported, registered, tracking_uri(run.loaded))


def _exported(
    run: Run,
    recorder: MlflowRecorder,
    results: RunResults,
    cache: str | None,
    workbench: WorkbenchSpec,
) -> dict[str, Any]:
    """The champion's files; figures of all students and of these files are recorded."""
    champion = results.champion
    try:
        exported = export_stage(
            run,
            champion,
            results.basis,
            cache=cache,
            figures=ChampionFigures(results.champion_metrics(), results.costs[champion.record.trial]),
            aware=aware_stage(run, workbench, champion.record),
        )
    except StillhouseError:
        _record(run, recorder, results, {})  # what was found so far is not withheld
        raise
    _record(run, recorder, results, shipped_figures(exported))
    return exported


def _record(run: Run, recorder: MlflowRecorder, results: RunResults, shipped: Mapping[str, float]) -> None:
    finalists = finalists_of(run, results)
    record_figures(results, finalists, constraints_of(run), recorder, run.ledger, shipped)


def _teachers_answers(
    run: Run, basis: Basis, search: str
) -> tuple[CacheSummary | None, SelectionAnswers | None]:
    """The answers of a teacher that is heard: those to learn from, where a cache keeps them, and those to
    the selection split.
    """
    if not run.hears_teacher or basis.teacher is None:
        return None, None
    over = run.ledger.finished(STAGE, run_key(run.loaded, run.ledger)) is not None
    needed = not over and slots_are_needed(run, search, basis.teacher)
    cache = cache_stage(run, basis.teacher, needed=needed)
    tell_live_teacher(run, basis.teacher)
    return cache, selection_answers(run, basis.teacher, needed=needed)


def _search_stage(run: Run, workbench: WorkbenchSpec, search: str) -> None:
    def search_action() -> dict[str, Any]:
        run.workers.start_slots()
        composer = Composer(run.experiment, run.space, workbench, search)
        task = SearchTask(composer, run.workers.broker, run.workers.plan.slots, run.out / "tune")
        return run_search(task, run.ledger, run.console)

    run.stages.run("search", search_stage_key(run, search), search_action)
