"""The stage that trains the champion on for int8: by the one loop, on a slot, with fake quantisation."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from orchestrator.config.sections.export import AwareConfig
from orchestrator.pipeline.context import Run
from orchestrator.pipeline.slot_jobs import run_jobs
from orchestrator.records.events import StageEpoch
from orchestrator.records.ledger import TrialRecord
from orchestrator.terminal.formatting import percent
from trainables.config import TrainingPrecision, TrialSpec, WorkbenchSpec, digest_of
from trainables.config.training import ScheduleName
from trainables.seeds import derive_seed
from trainables.slots.messages import End, Job, Message, TrainJob

STAGE: Final = "int8 aware"
_DIGITS: Final = 12
"""Of a key, in the name of a job."""


def aware_key(run: Run, record: TrialRecord, settings: AwareConfig) -> str:
    """The key under which the ledger keeps what came of training a student on for int8."""
    place = record.checkpoint and run.key_path(record.checkpoint)
    return digest_of([record.trial, place, settings.plain()])


def aware_stage(run: Run, workbench: WorkbenchSpec, record: TrialRecord) -> dict[str, Any] | None:
    """The champion with fake quantisation: {"weights", "best_epoch", "key"}, or {"refused": why}.

    None where the experiment does not ask for it. It learns as it did, from its own weights on: by its
    objective as that was in its last epoch, from the same views and the same cache. A student that cannot
    be quantised is exported in all other formats.

    Raises:
        StillhouseError: no job can be done any more, as where storage is full.
    """
    settings = run.experiment.export.aware
    if settings is None:
        return None
    key = aware_key(run, record, settings)
    spec = TrialSpec.from_plain(record.spec)

    def train() -> dict[str, Any]:
        if spec.peers:
            return {
                "refused": f"{spec.objective.name} trains several networks together, and only the student "
                "was kept: take int8, which needs no training"
            }
        job = TrainJob(
            workbench=workbench,
            trial=aware_spec(spec, settings, f"{record.trial}-int8-{key[:_DIGITS]}"),
            fake_quantised=record.checkpoint,
        )
        return {**_result(_trained(run, job, key)), "key": key}

    return run.stages.run(STAGE, key, train, still_valid=_is_there)


def aware_spec(champion: TrialSpec, settings: AwareConfig, name: str) -> TrialSpec:
    """How a student is trained on: a course of its own, which begins where its own one ended."""
    training = champion.training
    return champion.with_overrides(
        trial_id=name,
        # What changed over its course has arrived: the teacher's weight is whole, the temperature the last.
        objective=champion.objective.at(training.epochs, training.epochs),
        training=training.with_overrides(
            epochs=settings.epochs,
            lr=training.lr * settings.lr_factor,
            schedule=ScheduleName.COSINE,
            milestones=(),
            warmup_epochs=0.0,
            checkpoint_every=1,
            precision=TrainingPrecision.FP32,  # bf16 has fewer levels than int8 between two of its steps
            compile=False,
        ),
        seed=derive_seed(champion.seed, STAGE),
        fork=None,
        keep_states=False,
    )


def _trained(run: Run, job: TrainJob, key: str) -> Message:
    run.workers.start_slots()
    epochs = job.trial.training.epochs
    events = run.ledger.events_of(StageEpoch)
    told = max((event.epoch for event in events if (event.stage, event.key) == (STAGE, key)), default=0)
    with run.console.progress(STAGE, epochs) as progress:
        progress.update(told)

        def on_message(_: Job, message: Message) -> None:
            if message.epoch <= told or not message.metrics:
                return
            run.ledger.append(StageEpoch(stage=STAGE, key=key, epoch=message.epoch, metrics=message.metrics))
            reached = message.figure(job.trial.rank_by)
            progress.update(message.epoch, "" if reached is None else f"selection {percent(reached)} %")

        return run_jobs(run.workers.broker, [job], on_message, each_may_fail=True)[job.job_id]


def _result(end: Message) -> dict[str, Any]:
    if end.end is not End.COMPLETED or end.checkpoint is None:
        return {"refused": end.reason or "its training was stopped"}
    return {"weights": end.checkpoint, "best_epoch": end.best_epoch}


def _is_there(found: dict[str, Any]) -> bool:
    return "refused" in found or Path(found["weights"]).is_file()
