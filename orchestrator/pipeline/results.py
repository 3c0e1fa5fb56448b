"""From what the stages found to summary.json, the report, and the figures in MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.pipeline.basis.basis import Basis
from orchestrator.pipeline.basis.teacher_figures import teacher_figures
from orchestrator.pipeline.context import Run
from orchestrator.pipeline.controls.figures import Compared
from orchestrator.pipeline.finished import STAGE, run_key
from orchestrator.pipeline.preflight import leaks_found
from orchestrator.records.costs import StudentCosts
from orchestrator.records.events import StageEvent
from orchestrator.records.exported_files import Exported
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.picking.picked import Picked
from orchestrator.records.places import summary_as_written
from orchestrator.records.ranked_figures import claims_of
from orchestrator.records.selection import Figures, SelectedChampion, group_trials
from orchestrator.records.student_figures import Finalist, taken_together
from orchestrator.records.summary import (
    CacheFigures,
    MlflowPlace,
    Summary,
    UnlabelledFigures,
    champion_of,
    lacking,
    trial_row,
    write_summary,
)
from orchestrator.reports.html_report import write_report
from orchestrator.reports.run_facts import facts_of
from orchestrator.tracking.recorder import MlflowRecorder
from orchestrator.tracking.views import ranked_runs_url
from trainables.config.data import SplitFacts, UnlabelledCounts
from trainables.config.metrics import RankBy
from trainables.teacher.cache_build import CacheSummary

LOCAL_UI = "http://127.0.0.1:5000"
FLUSH_S = 120.0
_SECOND_FLUSH_S = 5.0
"""Where MLflow was waited for in vain just now."""


@dataclass(frozen=True)
class RunResults:
    """All that a run found out."""

    basis: Basis
    cache: CacheSummary | None
    records: Sequence[TrialRecord]
    finalists: Sequence[TrialRecord]
    controls: Sequence[TrialRecord]
    champion: SelectedChampion
    picked: Picked
    """By what it was chosen."""
    costs: Mapping[str, StudentCosts]
    """By trial id, and under `teacher` where there is one."""
    tested: Figures
    """Of the test split, by trial id, and under `teacher`."""

    @property
    def rank_by(self) -> RankBy:
        """The figure that students are ranked by."""
        return self.champion.group.rank_by

    @property
    def compared(self) -> list[TrialRecord]:
        """Controls and finalists, which may be controls of others."""
        return [*self.controls, *self.finalists]

    @property
    def tests(self) -> dict[str, float]:
        """That figure on the test split, by trial id."""
        return {t: found[self.rank_by] for t, found in self.tested.items() if self.rank_by in found}

    def champion_metrics(self) -> dict[str, float]:
        """The claims of the champion: means over its seeds; fractions.

        Where another figure ranks students, what their own answers reach stands beside it.
        """
        own = claims_of(self.champion, self.tested, self.rank_by)
        return own | claims_of(self.champion, self.tested, RankBy.ACCURACY)

    def lineage(self, search: str) -> dict[str, str]:
        """Where the champion comes from, as tags of the registry."""
        metrics = {name: f"{value:.5f}" for name, value in self.champion_metrics().items()}
        return {
            **self._taught(),
            "search": search,
            "trial_id": self.champion.record.trial,
            "objective": self.champion.record.objective,
            **metrics,
        }

    def _taught(self) -> dict[str, str]:
        """Fingerprints of the teacher that students are known by, and of its cache; none without."""
        teacher = self.basis.known_by
        cache = self.cache.identity.digest() if self.cache else "none"
        return {} if teacher is None else {**teacher.hashes, "cache": cache}


def write_up(
    run: Run,
    recorder: MlflowRecorder,
    results: RunResults,
    shipped: Mapping[str, Any],
    registered: Mapping[str, Any],
    tracking_uri: str,
) -> Summary:
    """Write summary.json and report.html, bring MLflow up to date, and note that the run is finished.

    Where MLflow lacks something, the summary says so, the run is not noted as finished, and running again
    writes it.
    """
    summary = _summary(run, results, shipped, registered, tracking_uri)
    write_summary(run.out / "summary.json", summary)
    report = run.out / "report.html"
    within = Summary.from_plain(summary_as_written(summary.plain()))
    write_report(report, facts_of(run.loaded, run.ledger, within))
    is_new = run.ledger.finished(STAGE, run_key(run.loaded, run.ledger)) is None
    if is_new or recorder.began_anew:  # what was kept before names the runs of the store that is gone
        recorder.record_artifact(report)
        recorder.record_artifact(run.out / "summary.json")
    refused = registered.get("lacks")
    left = recorder.flush(FLUSH_S if refused is None else _SECOND_FLUSH_S)
    if left or refused is not None:
        summary = lacking(summary, str(left) if left else f"{refused}; the next run tries again")
    else:
        key = run_key(run.loaded, run.ledger)
        run.ledger.append(StageEvent(stage=STAGE, key=key, status="finished", seconds=0.0, result={}))
    summary = summary.model_copy(update={"ledger": run.ledger.mark()})
    write_summary(run.out / "summary.json", summary)
    return summary


def _summary(
    run: Run,
    results: RunResults,
    shipped: Mapping[str, Any],
    registered: Mapping[str, Any],
    tracking_uri: str,
) -> Summary:
    finalists = finalists_of(run, results)
    champion_id = results.champion.record.trial
    winner = next(finalist for finalist in finalists if champion_id in finalist.trials)
    exports = {name: Exported.from_plain(file) for name, file in shipped["files"].items()}
    base = tracking_uri if tracking_uri.startswith("http") else LOCAL_UI
    return Summary(
        experiment=run.experiment.name,
        out=str(run.out),
        rank_by=results.rank_by,
        seconds=dict(run.stages.seconds),
        teacher=teacher_figures(run, results.basis.teacher, results.tested, results.costs, results.rank_by),
        cache=_cache_figures(results.cache),
        trials=tuple(trial_row(record, results.costs.get(record.trial)) for record in results.records),
        finalists=tuple(finalists),
        champion=champion_of(winner, champion_id, exports, shipped["card"]).with_overrides(
            not_exported=shipped.get("refused", {})
        ),
        mlflow=MlflowPlace(
            tracking_uri=tracking_uri,
            experiment_id=registered["experiment_id"],
            parent_run_id=registered["parent_run_id"],
            ui_url=_ranked_runs(base, registered["experiment_id"]),
            registered_model=registered["model"],
            version=registered["version"],
        ),
        picked=None if results.picked.says_nothing else results.picked,
        leaks=leaks_found(run),
        ledger=run.ledger.mark(),
        unlabelled=_unlabelled_figures(run, results.basis.split),
    )


def finalists_of(run: Run, results: RunResults) -> list[Finalist]:
    """What the summary says of each finalist beside its controls, the best mean first."""
    compared = Compared(run.experiment, results.compared, results.tested, results.costs, results.records)
    return taken_together([compared.finalist(group) for group in group_trials(results.finalists)])


def _ranked_runs(base: str, experiment_id: str | None) -> str | None:
    return None if experiment_id is None else ranked_runs_url(base, experiment_id)


def _unlabelled_figures(run: Run, split: SplitFacts) -> UnlabelledFigures | None:
    found, config = split.unlabelled, run.experiment.data.unlabelled
    if found is None or config is None:
        return None
    counts = found.model_dump(include=set(UnlabelledCounts.model_fields))
    return UnlabelledFigures(share=config.share, **counts)


def _cache_figures(cache: CacheSummary | None) -> CacheFigures | None:
    if cache is None:
        return None
    return CacheFigures(
        uri=cache.uri, fingerprint=cache.identity.digest(), rows=cache.rows, bytes=cache.bytes
    )
