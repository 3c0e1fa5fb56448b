"""A search goes on when broker or proxies are killed, when trials fail, and stops what nobody wants."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from orchestrator.config.loading import LoadedExperiment
from orchestrator.pipeline.context import Run
from orchestrator.pipeline.finalists import finalists_stage, profile_stage
from orchestrator.pipeline.stages import Stages
from orchestrator.pipeline.workers import Workers
from orchestrator.records.ledger import Ledger, TrialRecord
from orchestrator.records.ledger_writer import Bookkeeper
from orchestrator.records.relations import controls_of, with_repetitions
from orchestrator.terminal.console import Console
from tests.integration.fault_students import DIVERGES, OUT_OF_MEMORY, RAISES
from tests.integration.watched_search import (
    Search,
    ends_of,
    epochs_of,
    events_in,
    experiment_of,
    kill,
    meanwhile,
    pids_of,
    space_of,
    wait_for_epochs,
    wait_until,
)
from trainables.errors import StillhouseError
from trainables.slots.follower import Follower
from trainables.slots.proxies.tune_trial import StudentTrial

pytestmark = pytest.mark.ray

BROKER = "_BrokerActor"
PROXY = "with_resources.<locals>.ResourceTrainable"
EPOCHS = 4


def slow(seconds: float = 0.05, diary: Path | str = "") -> dict[str, Any]:
    arguments = {"seconds": seconds, "diary": str(diary)}
    return {"factory": "tests.integration.fault_students:slow", "arguments": arguments}


MOODY = {"factory": "tests.integration.fault_students:moody"}


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """One session with one slot, for all searches of this file."""
    with Workers(experiment_of(slow()), tmp_path_factory.mktemp("slots"), Console(json_only=True)) as workers:
        workers.start_slots()
        yield workers


def every_epoch_once(events: list[Any], *, trials: int) -> bool:
    counts = epochs_of(events)
    return len(counts) == trials * EPOCHS and set(counts.values()) == {1}


def test_a_broker_that_is_killed_comes_back_and_no_trial_is_lost_or_doubled(
    workers: Workers, tmp_path: Path
) -> None:
    diary = tmp_path / "diary"
    search = Search(workers, experiment_of(slow(0.05, diary)), space_of(batch_size=[32, 50, 64]), tmp_path)

    def kill_twice() -> None:
        for epochs in (2, 6):
            wait_for_epochs(tmp_path, epochs)
            kill(BROKER)
            wait_until(lambda: len(pids_of(BROKER)) == 1, "the broker's return")

    with meanwhile(kill_twice):
        events = search.run()
    assert {end["status"] for end in ends_of(events).values()} == {"completed"}
    assert every_epoch_once(events, trials=3)


def test_a_broker_that_came_back_answers_for_finished_trials(workers: Workers, tmp_path: Path) -> None:
    search = Search(workers, experiment_of(slow()), space_of(batch_size=[48, 63]), tmp_path)
    first = search.run()
    kill(BROKER)
    wait_until(lambda: len(pids_of(BROKER)) == 1, "the broker's return")
    assert search.run() == first
    jobs = ray.get(workers.broker.slots.remote())
    assert sum(slot["jobs"] for slot in jobs.values()) == 0


@pytest.fixture
def proxies_as_actors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tune keeps its proxies as actors, as with a Ray whose parts have other names."""
    monkeypatch.setattr("trainables.slots.proxies.proxies_in_driver.can_be_in_driver", lambda: False)


def test_proxies_are_no_processes(workers: Workers, tmp_path: Path) -> None:
    search = Search(workers, experiment_of(slow()), space_of(batch_size=[39, 55]), tmp_path)
    found: list[int] = []

    def look() -> None:
        wait_for_epochs(tmp_path, 2)
        found.extend(pids_of(PROXY))

    with meanwhile(look):
        events = search.run()
    assert found == []
    assert every_epoch_once(events, trials=2)


def test_a_proxy_that_fails_is_retried_and_goes_on_where_it_was(
    workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Search(workers, experiment_of(slow()), space_of(batch_size=[41, 57]), tmp_path)
    fails_in(monkeypatch, heard=3, times=2)
    events = search.run()
    assert {end["status"] for end in ends_of(events).values()} == {"completed"}
    assert every_epoch_once(events, trials=2)
    assert Counter(search.told_to_tune) == epochs_of(events)


def test_a_trial_whose_proxy_always_fails_ends_with_the_reason_and_its_slot_lets_go(
    workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diary = tmp_path / "diary"
    experiment = experiment_of(slow(0.2, diary), epochs=200)
    search = Search(workers, experiment, space_of(batch_size=[61]), tmp_path)
    fails_in(monkeypatch, heard=1, times=99)
    with pytest.raises(StillhouseError, match="its proxy failed 4 times; in the end: no space"):
        search.run()
    gone_at = time.time()
    time.sleep(1.5)
    assert sum(float(at) > gone_at for at in diary.read_text().splitlines()) <= 1


def fails_in(monkeypatch: pytest.MonkeyPatch, *, heard: int, times: int) -> None:
    """Proxies that have heard so much of their job fail, so many times in all."""
    left = [times]
    hear = StudentTrial.hear

    def failing(trial: StudentTrial, answer: Any) -> bool:
        there = hear(trial, answer)
        follower = trial._follower
        if there and left[0] and follower is not None and len(follower.heard) >= heard:
            left[0] -= 1
            raise OSError("no space is left")
        return there

    monkeypatch.setattr(StudentTrial, "hear", failing)


@pytest.mark.usefixtures("proxies_as_actors")
def test_a_proxy_that_is_killed_is_retried_and_goes_on_where_it_was(workers: Workers, tmp_path: Path) -> None:
    search = Search(workers, experiment_of(slow()), space_of(batch_size=[40, 56]), tmp_path)

    def kill_the_proxies() -> None:
        wait_for_epochs(tmp_path, 2)
        for pid in pids_of(PROXY):
            os.kill(pid, signal.SIGKILL)

    with meanwhile(kill_the_proxies):
        events = search.run()
    assert {end["status"] for end in ends_of(events).values()} == {"completed"}
    assert every_epoch_once(events, trials=2)
    assert Counter(search.told_to_tune) == epochs_of(events)


def test_trials_that_fail_end_with_their_reasons_and_the_slot_goes_on(
    workers: Workers, tmp_path: Path
) -> None:
    slot_before = ray.get(workers.broker.slots.remote())
    sizes = [OUT_OF_MEMORY, RAISES, DIVERGES, 64]
    search = Search(workers, experiment_of(MOODY), space_of(batch_size=sizes), tmp_path)
    ends = list(ends_of(search.run()).values())
    assert sorted(end["status"] for end in ends) == ["completed", "failed", "failed", "failed"]
    reasons = "\n".join(end["reason"] for end in ends if end["reason"])
    assert "OutOfMemoryError: CUDA out of memory" in reasons
    assert "RuntimeError: the student lost" in reasons
    assert "the loss is nan in epoch 2" in reasons
    slot_after = ray.get(workers.broker.slots.remote())
    assert {name: slot["pid"] for name, slot in slot_before.items()} == {
        name: slot["pid"] for name, slot in slot_after.items()
    }


def finalists_of(workers: Workers, folder: Path, *batch_sizes: int) -> list[TrialRecord]:
    """The finalists that are left of moody students with these batch sizes, two seeds each."""
    experiment = experiment_of(MOODY)
    experiment = experiment.with_overrides(budget=experiment.budget.with_overrides(seeds=2))
    search = Search(workers, experiment, space_of(batch_size=list(batch_sizes)), folder)
    loaded = LoadedExperiment(experiment, search.space, folder / "none.yaml", folder / "none.yaml")
    ledger, console = Ledger(folder), Console(json_only=True)
    books, composer = Bookkeeper(ledger, search=folder.name), search.composer
    chosen = []
    for size in batch_sizes:
        job = composer({"objective": "ce", "training": {"batch_size": size}}).job
        books.started(job, parameters={"training.batch_size": size})
        record = ledger.trial(job.job_id)
        assert record is not None
        chosen.append(record)
    run = Run(loaded, folder, ledger, Stages(ledger, console), workers, console)
    finalists, controls = finalists_stage(run, composer.workbench, folder.name, chosen)
    assert controls == []  # students without a teacher need no others to be compared with
    return finalists


def test_finalists_that_fail_take_no_other_with_them(
    workers: Workers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left = finalists_of(workers, tmp_path, DIVERGES, 64)
    assert [record.parameters["training.batch_size"] for record in left] == [64, 64]
    assert {record.status for record in left} == {"completed"}
    said = capsys.readouterr().err
    assert said.count("has no part in what follows; it failed: the loss is nan in epoch 2") == 2


def test_a_run_stops_when_no_finalist_is_left(workers: Workers, tmp_path: Path) -> None:
    with pytest.raises(StillhouseError, match="the finalists failed with every seed: the loss is nan"):
        finalists_of(workers, tmp_path, DIVERGES)


def test_finalists_of_two_widths_are_compared_with_controls_of_their_own_widths(
    workers: Workers, tmp_path: Path
) -> None:
    experiment = experiment_of({"name": "mlp", "width": 8})
    experiment = experiment.with_overrides(budget=experiment.budget.with_overrides(seeds=2))
    space = space_of(lr=[0.1]).with_overrides(
        objectives={"ls": {}}, student={"width": {"grid_search": [4, 16]}}
    )
    search = Search(workers, experiment, space, tmp_path)
    search.run()
    loaded = LoadedExperiment(experiment, space, tmp_path / "none.yaml", tmp_path / "none.yaml")
    ledger, console = Ledger(tmp_path), Console(json_only=True)
    run = Run(loaded, tmp_path, ledger, Stages(ledger, console), workers, console)
    searched, workbench = ledger.trials(), search.composer.workbench
    costs = profile_stage(run, workbench, tmp_path.name, searched)
    finalists, controls = finalists_stage(run, workbench, tmp_path.name, searched)
    costs = with_repetitions(costs, searched=searched, finalists=finalists, controls=controls)
    assert len(finalists) == 4
    # Each width has the file's rate and the one that the search found, with both seeds.
    recipes = Counter((r.spec["student"]["width"], r.spec["training"]["lr"]) for r in controls)
    assert recipes == {(width, lr): 2 for width in (4, 16) for lr in (0.05, 0.1)}
    for finalist in finalists:
        groups = controls_of(finalist, [*finalists, *controls])
        assert groups[0].mean == max(group.mean for group in groups)
        paired = [student for group in groups for student in group.records]
        assert {student.spec["student"]["width"] for student in paired} == {
            finalist.parameters["student.width"]
        }
        assert {costs[student.trial] for student in paired} == {costs[finalist.trial]}


def test_after_too_many_failed_trials_the_search_stops_and_says_why(workers: Workers, tmp_path: Path) -> None:
    experiment = experiment_of(MOODY)
    budget = experiment.budget.with_overrides(max_failed_trials=2)
    experiment = experiment.with_overrides(budget=budget.plain())
    search = Search(workers, experiment, space_of(batch_size=[RAISES, DIVERGES, 64, 63]), tmp_path)
    with pytest.raises(StillhouseError) as stopped:
        search.run()
    text = str(stopped.value)
    assert "the search stopped: 2 trials failed" in text
    assert "1 x RuntimeError: the student lost its temper" in text
    assert "1 x the loss is nan in epoch 2" in text
    assert "raise budget.max_failed_trials" in text
    assert "pruned" not in {end["status"] for end in ends_of(events_in(tmp_path)).values()}


def test_a_cancellation_reaches_a_running_trial_within_one_batch(workers: Workers, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    search = Search(workers, experiment_of(slow(0.3, diary)), space_of(batch_size=[64]), tmp_path)
    job = search.composer({"training": {"batch_size": 64}}).job
    follower = Follower(workers.broker, job.job_id, job.plain(), holder="test")
    follower.submit()
    wait_until(lambda: diary.exists() and len(diary.read_text().splitlines()) >= 2, "the second batch")
    follower.cancel()
    cancelled_at = time.time()
    time.sleep(1.5)
    batches = [float(at) for at in diary.read_text().splitlines()]
    assert sum(at > cancelled_at for at in batches) <= 1


@pytest.mark.usefixtures("proxies_as_actors")
def test_a_slot_does_not_finish_a_trial_that_tune_gave_up(workers: Workers, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    experiment = experiment_of(slow(0.2, diary), epochs=200)
    search = Search(workers, experiment, space_of(batch_size=[64]), tmp_path)

    def kill_every_proxy() -> None:
        for _ in range(4):
            wait_until(lambda: len(pids_of(PROXY)) > 0, "a proxy")
            wait_for_epochs(tmp_path, len(epochs_of(events_in(tmp_path))) + 1)
            for pid in pids_of(PROXY):
                os.kill(pid, signal.SIGKILL)

    with meanwhile(kill_every_proxy), pytest.raises(StillhouseError, match="its proxy failed 4 times"):
        search.run()
    gone_at = time.time()
    time.sleep(1.5)
    assert sum(float(at) > gone_at for at in diary.read_text().splitlines()) <= 1


def test_a_trial_dropped_and_taken_up_again_ends_with_bit_identical_weights(
    workers: Workers, tmp_path: Path
) -> None:
    """Through the real slot: cancelled in its third epoch, submitted again, against one left alone."""
    weights: list[bytes] = []
    for folder, interrupted in ((tmp_path / "alone", False), (tmp_path / "dropped", True)):
        search = Search(workers, experiment_of(slow()), space_of(batch_size=[64]), folder)
        job = search.composer({"training": {"batch_size": 64}}).job
        job = job.with_overrides(trial=job.trial.with_overrides(seed=5, trial_id=f"twin-{interrupted}"))
        follower = Follower(workers.broker, job.job_id, job.plain(), holder="test")
        follower.submit()
        if interrupted:
            assert [follower.next().epoch, follower.next().epoch] == [1, 2]
            follower.cancel()
            follower.submit()
        message = follower.next()
        while message.end is None:
            message = follower.next()
        assert [heard.epoch for heard in follower.heard] == [1, 2, 3, 4]
        assert message.checkpoint is not None
        weights.append(tensors_of(Path(message.checkpoint)))
    assert weights[0] == weights[1]


def tensors_of(path: Path) -> bytes:
    """The numbers of a safetensors file, without its head, where the trial's name stands."""
    content = path.read_bytes()
    return content[8 + int.from_bytes(content[:8], "little") :]
