"""The search: Ray Tune proposes, warm slots train, the ledger keeps every epoch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune

from cluster.environment import variables
from orchestrator.config.cross_checks import max_epochs
from orchestrator.records.ledger import Ledger
from orchestrator.records.ledger_writer import Bookkeeper, agreements_in, history
from orchestrator.search.progress import SearchProgress, search_progress
from orchestrator.search.trial_specs import Composer, Proposal
from orchestrator.terminal.console import Console
from search_spaces.tune_plan import SearchPlan, search_plan
from trainables.config import Fork, Role
from trainables.errors import StillhouseError
from trainables.slots.follower import briefed
from trainables.slots.messages import End, Message, TrainJob
from trainables.slots.proxies.proxies_in_driver import proxies_in_driver
from trainables.slots.proxies.tune_trial import Pointer, StudentTrial
from trainables.training.progress.checkpoint_paths import drop_states

# A proxy that is an actor must never compete with slots for CPUs; Tune refuses an empty request.
PROXY_MEMORY_BYTES = 1 << 20
# Failures of one trial's proxy that Tune makes good; a trial that failed by itself is not tried again.
MAX_PROXY_FAILURES = 3


@dataclass(frozen=True)
class SearchTask:
    """What a search needs beside the space."""

    composer: Composer
    broker: Any
    slots: int
    folder: Path


def run_search(task: SearchTask, ledger: Ledger, console: Console) -> dict[str, Any]:
    """Propose and train until the budget is spent; finished trials of an earlier run are replayed only.

    Raises:
        StillhouseError: too many trials failed, or none was completed.
    """
    books = Bookkeeper(
        ledger,
        search=task.composer.search,
        agreements=lambda: ray.get(task.broker.agreements.remote()),
    )
    plan = _plan(task, ledger)
    epochs = max_epochs(task.composer.experiment, task.composer.space)
    with search_progress(
        console, task.broker, trials=plan.trials, epochs=epochs, slots=task.slots
    ) as progress:
        follower = SearchFollower(task, books, progress, widen=plan.widen)
        with briefed(task.broker, lambda: _replay(task, ledger)):
            _tune(task, plan, follower)
    if follower.broken is not None:
        raise StillhouseError(f"the search stopped: {follower.broken}; run again to go on from here")
    if follower.too_many_failures:
        raise StillhouseError(
            f"the search stopped: {books.failures()}; mend what they have in common, or raise "
            "budget.max_failed_trials, and run again"
        )
    if books.count("completed") == 0:
        raise StillhouseError(f"no trial was completed: {books.failures()}")
    for record in ledger.trials(search=task.composer.search, role=Role.SEARCH):
        drop_states(Path(task.composer.workbench.checkpoints) / record.trial, keep_for_forks=False)
    return {status: books.count(status) for status in ("completed", "pruned", "failed")}


class SearchFollower(tune.Callback, tune.Stopper):
    """Passes what Tune sees to the ledger and the progress line, and ends a search that only fails."""

    def __init__(
        self, task: SearchTask, books: Bookkeeper, progress: SearchProgress, *, widen: Callable[[int], None]
    ) -> None:
        """`widen` lets so many trials live at once; it is told how many slots are up."""
        self._composer = task.composer
        self._broker = task.broker
        self._max_failed = task.composer.experiment.budget.max_failed_trials
        self._books = books
        self._progress = progress
        self._widen = widen
        self._proposals: dict[str, Proposal] = {}
        """By job, the students of this search: each is composed once, here."""
        self._jobs: dict[str, str] = {}
        """By Tune's trial, the student that it is now: a fork is a student of its own."""
        self.broken: str | None = None
        """Why no trial at all can go on; those that were running stay so, for the next run."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks to restore them, and we never restore from a pickle."""
        return {}

    @property
    def too_many_failures(self) -> bool:
        """Whether the search was ended by its failed trials."""
        return self._books.count("failed") >= self._max_failed

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Give the proxy its job; note the student, and where it is another than before, the former's end."""
        proposal, known = self._proposal(trial), self._jobs.get(trial.trial_id)
        job = proposal.job
        self._proposals[job.job_id], self._jobs[trial.trial_id] = proposal, job.job_id
        # Tune calls the proxy after this callback, and a proxy does the calls of one caller in their order.
        trial.temporary_state.ray_actor.assign.remote(job)
        if known not in (None, job.job_id):
            self._note_replaced(known, job)
        self._books.started(job, parameters=proposal.parameters, sampled=proposal.sampled)
        self._progress.started(trial, job)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Note an epoch."""
        message: Message = result["message"]
        self._books.reported(result["trial"], message)
        self._progress.reported(trial.trial_id, message)

    def on_checkpoint(
        self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any
    ) -> None:
        """A trial that is paused gives its slot to another at once; its pointer is kept by now."""
        if trial.status == "PAUSED":
            self._broker.cancel.remote(self._jobs[trial.trial_id], trial.trial_id)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note an end; a trial whose last message had no end was stopped by the scheduler."""
        job_id = self._jobs[trial.trial_id]
        epoch = (trial.last_result or {}).get("epoch", 0)
        # At once, and also where the proxy is dead: the slot need not wait for the next trial to know.
        self._broker.cancel.remote(job_id, trial.trial_id)
        if not self.stop_all():  # what a search that ends early leaves behind is for the next run
            scheduler = self._composer.space.scheduler
            self._books.pruned(job_id, f"stopped by {scheduler.name} {scheduler.place_of(epoch)}")
        self._progress.ended(trial.trial_id, self._books.status(job_id))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note a failure and its reason."""
        job_id = self._jobs[trial.trial_id]
        self.broken = ray.get(self._broker.failure.remote())
        if self.broken is None and not self._note_failure(job_id):
            self._broker.cancel.remote(job_id, trial.trial_id)
            self._books.failed(job_id, _why_unheard(trial))
        self._progress.ended(trial.trial_id, self._books.status(job_id))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune tries a trial again whose proxy failed; one that failed by itself would only fail again."""
        self.broken = ray.get(self._broker.failure.remote())
        if self._note_failure(self._jobs[trial.trial_id]):
            trial.max_failures = 0

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Tune's loop went round, which it does several times a second."""
        slots = self._progress.tick()
        if slots is not None:
            self._widen(slots.at_once)  # slots that came, or train several students, are to have trials

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never stop a single trial: that is the scheduler's business."""
        return False

    def stop_all(self) -> bool:
        """End a search in which too many trials fail."""
        return self.too_many_failures or self.broken is not None

    def _proposal(self, trial: Any) -> Proposal:
        """The student that a trial is from now on; it is composed unless this search has it already.

        A trial with another student's pointer and values of its own is a fork of that student. With the
        values of that student as well, it is that student.
        """
        sampled, fork = sampled_values(trial.config), None
        if trial.checkpoint is not None:
            with trial.checkpoint.as_directory() as folder:
                pointer = Pointer.read(Path(folder))
            origin = self._proposals[pointer.job_id]
            if origin.sampled == sampled:
                return origin
            fork = Fork(trial_id=pointer.job_id, epoch=pointer.epoch)
        known = self._proposals.get(self._jobs.get(trial.trial_id, ""))
        if known is not None and (known.sampled, known.job.trial.fork) == (sampled, fork):
            return known  # its proxy died before the first pointer of its own
        return self._composer(sampled, fork)

    def _note_replaced(self, known: str, job: TrainJob) -> None:
        if job.trial.fork is not None:
            self._books.replaced(known, job.job_id, job.trial.fork)
        else:
            self._books.pruned(known, f"replaced by {job.job_id}, whose values and weights it was given")

    def _note_failure(self, job_id: str) -> bool:
        """Note the reason of a trial that failed by itself; false when its proxy alone is dead."""
        last: Message | None = ray.get(self._broker.last.remote(job_id))
        if last is None or last.end is not End.FAILED:
            return False
        self._books.reported(job_id, last)
        return True


def sampled_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the searcher proposed, without Tune's own entries."""
    return {key: value for key, value in config.items() if not key.startswith("__")}


def _plan(task: SearchTask, ledger: Ledger) -> SearchPlan:
    experiment = task.composer.experiment
    recorded = ledger.trials(search=task.composer.search, role=Role.SEARCH)
    return search_plan(
        task.composer.space,
        trials=experiment.budget.trials,
        seed=experiment.seed,
        max_epochs=max_epochs(experiment, task.composer.space),
        proposed=[dict(record.sampled) for record in recorded],
        concurrent=task.slots,
    )


def _tune(task: SearchTask, plan: SearchPlan, follower: SearchFollower) -> None:
    # Our own table and ledger tell what Tune would print; a failed trial is no error of the search.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    trainable = tune.with_resources(
        tune.with_parameters(StudentTrial, broker=task.broker),
        tune.PlacementGroupFactory([{"memory": PROXY_MEMORY_BYTES}]),
    )
    tuner = tune.Tuner(
        trainable,
        param_space=plan.param_space,
        tune_config=tune.TuneConfig(
            metric=plan.metric,
            mode=plan.mode,
            search_alg=plan.searcher,
            scheduler=plan.scheduler,
            num_samples=plan.num_samples,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=task.composer.search[:12],
            storage_path=str(task.folder),
            failure_config=tune.FailureConfig(max_failures=MAX_PROXY_FAILURES),
            verbose=0,
            callbacks=[follower],
            stop=follower,
        ),
    )
    # A proxy in this process would take it to the trial's folder, and leave a note of where it was.
    here = {"RAY_CHDIR_TO_TRIAL_DIR": "0", "TUNE_ORIG_WORKING_DIR": str(Path.cwd())}
    with variables(here), proxies_in_driver(trainable):
        tuner.fit()


def _why_unheard(trial: Any) -> str:
    """Why a trial failed that had not failed by itself: the last line of what Tune was told."""
    file = trial.error_file
    told = Path(file).read_text(errors="replace").strip().splitlines() if file else []
    return f"its proxy failed {MAX_PROXY_FAILURES + 1} times" + (f"; in the end: {told[-1]}" if told else "")


def _replay(task: SearchTask, ledger: Ledger) -> None:
    stops = not task.composer.space.scheduler.pauses
    heard = history(ledger, search=task.composer.search, stops=stops)
    told = [task.broker.replay.remote(trial, messages) for trial, messages in heard.items()]
    told += [task.broker.agree.remote(key, value) for key, value in agreements_in(ledger).items()]
    ray.get(told)
