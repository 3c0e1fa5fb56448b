"""A proposal is composed once, in the driver, and its job goes to the proxy that follows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.config.loading import load_experiment
from orchestrator.config.overrides import Overrides
from orchestrator.records.ledger import Ledger
from orchestrator.records.ledger_writer import Bookkeeper
from orchestrator.search.driver import SearchFollower, SearchTask
from orchestrator.search.progress import SearchProgress, SlotWatch
from orchestrator.search.progress_table import SearchBoard
from orchestrator.search.trial_specs import Composer
from trainables.config import Fork, WorkbenchSpec
from trainables.slots.messages import Message, TrainJob
from trainables.slots.proxies.tune_trial import Pointer

SEARCH = "s" * 64


def dkd(beta: float) -> dict[str, Any]:
    return {"objective": "dkd", "dkd": {"temperature": 2.0, "alpha": 1.0, "beta": beta}}


class Proxy:
    """The actor of a trial, as far as the driver calls it."""

    def __init__(self) -> None:
        self.jobs: list[TrainJob] = []
        self.assign = SimpleNamespace(remote=self.jobs.append)


@dataclass
class Pointed:
    """Tune's checkpoint: a folder."""

    folder: Path

    @contextmanager
    def as_directory(self) -> Iterator[str]:
        yield str(self.folder)


@dataclass
class TuneTrial:
    """What the driver sees of Tune's trial."""

    trial_id: str
    config: Mapping[str, Any]
    proxy: Proxy = field(default_factory=Proxy)
    checkpoint: Pointed | None = None
    status: str = "RUNNING"

    @property
    def temporary_state(self) -> SimpleNamespace:
        return SimpleNamespace(ray_actor=self.proxy)


@dataclass(frozen=True)
class CountingComposer(Composer):
    composed: list[Mapping[str, Any]] = field(default_factory=list)

    def __call__(self, sampled: Mapping[str, Any], fork: Fork | None = None) -> Any:
        self.composed.append(sampled)
        return super().__call__(sampled, fork)


@dataclass
class Search:
    composer: CountingComposer
    follower: SearchFollower
    ledger: Ledger
    folder: Path

    def start(self, trial: TuneTrial) -> TrainJob:
        """Tune has started or reset the proxy of a trial; the job that the proxy was given."""
        self.follower.on_trial_start(0, [], trial)
        return trial.proxy.jobs[-1]

    def report(self, trial: TuneTrial, epoch: int) -> None:
        message = Message(epoch=epoch, metrics={"selection/accuracy": 0.5})
        result = {"trial": trial.proxy.jobs[-1].job_id, "message": message}
        self.follower.on_trial_result(0, [], trial, result)

    def pointer(self, job: TrainJob, epoch: int) -> Pointed:
        folder = self.folder / f"{job.job_id}-{epoch}"
        folder.mkdir()
        Pointer(job_id=job.job_id, seen=epoch, epoch=epoch).write(folder)
        return Pointed(folder)

    def status(self, job: TrainJob) -> tuple[str, str | None]:
        record = self.ledger.trial(job.job_id)
        assert record is not None
        return record.status, record.reason


@pytest.fixture
def search(tmp_path: Path) -> Search:
    loaded = load_experiment("digits", overrides=Overrides(space="digits"))
    bench = WorkbenchSpec(
        data=loaded.config.data,
        views=loaded.config.views,
        view_seed=1,
        cache_uri=None,
        cache_manifest=None,
        checkpoints=str(tmp_path / "students"),
    )
    composer = CountingComposer(loaded.config, loaded.space, bench, SEARCH)
    ledger = Ledger(tmp_path)
    progress = SearchProgress(
        SearchBoard(trials=2, epochs=10, slots=1), SlotWatch(None), lambda: None, lambda _: None
    )
    follower = SearchFollower(
        SearchTask(composer, None, 1, tmp_path / "tune"),
        Bookkeeper(ledger, search=SEARCH),
        progress,
        widen=lambda _: None,
    )
    return Search(composer, follower, ledger, tmp_path)


def test_a_proposal_is_composed_once_and_its_job_travels_to_the_proxy(search: Search) -> None:
    trial = TuneTrial("t1", {**dkd(4.0), "__trial_info__": "Tune's own"})
    job = search.start(trial)
    for epoch in (1, 2):
        search.report(trial, epoch)
    assert job == Composer(*composer_fields(search))(dkd(4.0)).job
    assert search.composer.composed == [dkd(4.0)]
    record = search.ledger.trial(job.job_id)
    assert record is not None
    assert (record.sampled, record.epochs) == (dkd(4.0), 2)
    assert record.parameters["beta"] == 4.0


def composer_fields(search: Search) -> tuple[Any, ...]:
    composer = search.composer
    return composer.experiment, composer.space, composer.workbench, composer.search


def test_a_trial_that_was_paused_gets_the_same_job_again(search: Search) -> None:
    trial = TuneTrial("t1", dkd(4.0))
    job = search.start(trial)
    search.report(trial, 1)
    again = replace(trial, proxy=Proxy(), checkpoint=search.pointer(job, 1))
    assert search.start(again) is job
    assert len(search.composer.composed) == 1


def test_a_trial_whose_proxy_died_before_its_first_pointer_gets_the_same_job_again(search: Search) -> None:
    trial = TuneTrial("t1", dkd(4.0))
    job = search.start(trial)
    assert search.start(replace(trial, proxy=Proxy())) is job
    assert len(search.composer.composed) == 1


def test_other_values_with_anothers_pointer_are_a_fork_of_that_student(search: Search) -> None:
    loser, winner = TuneTrial("t1", dkd(1.0)), TuneTrial("t2", dkd(4.0))
    lost, won = search.start(loser), search.start(winner)
    fork = replace(loser, config=dkd(4.8), checkpoint=search.pointer(won, 3), proxy=Proxy())
    job = search.start(fork)
    assert job.trial.fork == Fork(trial_id=won.job_id, epoch=3)
    reason = f"replaced by {job.job_id}, which forked from {won.job_id} after epoch 3"
    assert search.status(lost) == ("pruned", reason)
    assert search.status(job) == ("running", None)
    # Its proxy dies before it has a pointer of its own: the pointer is the winner's still.
    assert search.start(replace(fork, proxy=Proxy())) is job
    assert search.composer.composed == [dkd(1.0), dkd(4.0), dkd(4.8)]


def test_a_fork_of_a_fork_begins_with_the_pointer_it_was_given(search: Search) -> None:
    loser, winner = TuneTrial("t1", dkd(1.0)), TuneTrial("t2", dkd(4.0))
    search.start(loser)
    won = search.start(winner)
    first = replace(loser, config=dkd(4.8), checkpoint=search.pointer(won, 3))
    job = search.start(first)
    second = replace(winner, config=dkd(5.8), checkpoint=search.pointer(job, 6))
    assert search.start(second).trial.fork == Fork(trial_id=job.job_id, epoch=6)


def test_the_values_of_another_student_with_its_pointer_are_that_student(search: Search) -> None:
    loser, winner = TuneTrial("t1", dkd(1.0)), TuneTrial("t2", dkd(4.0))
    lost, won = search.start(loser), search.start(winner)
    twin = replace(loser, config=dkd(4.0), checkpoint=search.pointer(won, 3))
    assert search.start(twin) is won
    status, reason = search.status(lost)
    assert status == "pruned"
    assert str(reason).startswith(f"replaced by {won.job_id}, ")
    assert search.status(won) == ("running", None)
