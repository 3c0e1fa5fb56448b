from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from orchestrator.records.events import EpochEnded, StageEvent
from orchestrator.records.ledger import Ledger, TrialRecord
from orchestrator.records.ledger_writer import Bookkeeper, agreements_in, history
from tests.unit.trainables.slots.broker_messages import queued
from trainables.config import (
    DataConfig,
    DataName,
    KdConfig,
    ModelConfig,
    ModelName,
    Role,
    TrainingConfig,
    TrialSpec,
    ViewsConfig,
    WorkbenchSpec,
)
from trainables.slots.broker import Broker
from trainables.slots.messages import End, Message, TrainJob

BEST = {"selection/accuracy": 0.9, "train/loss": 0.5}
COMPLETED = Message(
    epoch=3,
    metrics={"selection/accuracy": 0.8},
    end=End.COMPLETED,
    best_epoch=2,
    best=BEST,
    checkpoint="/elsewhere/best.safetensors",
)
FAILED = Message(end=End.FAILED, reason="the loss is nan in epoch 3")


def job_of(trial: str, role: Role = Role.SEARCH) -> TrainJob:
    workbench = WorkbenchSpec(
        data=DataConfig(name=DataName.DIGITS),
        views=ViewsConfig(),
        view_seed=1,
        cache_uri=None,
        cache_manifest=None,
        checkpoints="students",
    )
    spec = TrialSpec(
        trial_id=trial,
        role=role,
        objective=KdConfig(),
        student=ModelConfig(name=ModelName.MLP),
        training=TrainingConfig(),
        seed=3,
    )
    return TrainJob(workbench=workbench, trial=spec)


def epoch(number: int, accuracy: float = 0.5) -> Message:
    return Message(epoch=number, metrics={"selection/accuracy": accuracy})


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


@pytest.fixture
def books(ledger: Ledger) -> Bookkeeper:
    return Bookkeeper(ledger, search="s")


def start(books: Bookkeeper, trial: str = "t", role: Role = Role.SEARCH) -> None:
    books.started(job_of(trial, role), parameters={"temperature": 2.0}, sampled={"kd": {"temperature": 2.0}})


def record_of(ledger: Ledger, trial: str = "t") -> TrialRecord:
    record = Ledger(ledger.path.parent).trial(trial)
    assert record is not None
    return record


def kinds(ledger: Ledger) -> list[str]:
    return [event.kind for event in ledger.events()]


def heard_by_a_broker(ledger: Ledger, trial: str = "t") -> tuple[list[Message], int]:
    """What a proxy hears of a trial in the next run, and how many jobs are left to do."""

    async def replay() -> tuple[list[Message], int]:
        broker, heard = Broker(), list[Message]()
        for name, messages in history(ledger, search="s").items():
            await broker.replay(name, messages)
        await broker.submit(trial, job_of(trial).plain())
        while not heard or heard[-1].end is None:
            message = await broker.next(trial, len(heard), 0.01)
            if not isinstance(message, Message):
                break
            heard.append(message)
        return heard, queued(broker)

    return asyncio.run(replay())


def test_what_slots_agreed_on_is_kept_once_and_before_the_first_epoch(ledger: Ledger) -> None:
    agreed = {"precision/cpu": "bf16"}
    books = Bookkeeper(ledger, search="s", agreements=lambda: agreed)
    start(books)
    books.reported("t", epoch(1))
    agreed["precision/gpu"] = "fp32"
    books.reported("t", epoch(2))
    assert kinds(ledger) == ["trial_started", "agreed", "epoch", "epoch"]
    start(books, "u")
    books.reported("u", epoch(1))
    assert kinds(ledger)[4:] == ["trial_started", "agreed", "epoch"]
    assert agreements_in(Ledger(ledger.path.parent)) == {"precision/cpu": "bf16", "precision/gpu": "fp32"}


def test_every_epoch_says_what_it_was_trained_in(books: Bookkeeper, ledger: Ledger) -> None:
    start(books)
    books.reported("t", epoch(1).model_copy(update={"precision": "bf16 (table 1)"}))
    books.reported("t", epoch(2).model_copy(update={"precision": "bf16 (table 1)"}))
    books.pruned("t", "the scheduler stopped it")
    again = Ledger(ledger.path.parent)
    assert [event.precision for event in again.events_of(EpochEnded)] == ["bf16 (table 1)"] * 2
    record = again.trial("t")
    assert record is not None
    assert record.precision == "bf16 (table 1)"


def test_an_epoch_of_an_earlier_version_says_nothing_of_precision(books: Bookkeeper, ledger: Ledger) -> None:
    start(books)
    books.reported("t", epoch(1))
    assert '"precision"' not in ledger.path.read_text().splitlines()[-1]


def test_a_start_is_noted_with_all_that_it_takes_to_repeat_it(books: Bookkeeper, ledger: Ledger) -> None:
    start(books)
    record = record_of(ledger)
    assert (record.role, record.search, record.objective, record.status) == (
        Role.SEARCH,
        "s",
        "kd",
        "running",
    )
    assert (record.parameters, record.sampled) == ({"temperature": 2.0}, {"kd": {"temperature": 2.0}})
    assert TrialSpec.from_plain(record.spec) == job_of("t").trial


def test_what_a_student_repeats_is_noted(books: Bookkeeper, ledger: Ledger) -> None:
    for trial, role, repeats in (("ce-1-seed0", Role.BASELINE, "ce-1"), ("t-seed0", Role.FINALIST, "t")):
        books.started(job_of(trial, role), parameters={}, repeats=repeats)
        assert record_of(ledger, trial).repeats == repeats
    start(books, "searched")
    assert "repeats" not in ledger.events()[-1].plain()  # the line is that of earlier versions


def test_every_epoch_is_noted_once(books: Bookkeeper, ledger: Ledger) -> None:
    start(books)
    for message in (epoch(1), epoch(2), epoch(1), epoch(2), epoch(3)):
        books.reported("t", message)
    assert [event.epoch for event in ledger.events_of(EpochEnded)] == [1, 2, 3]


def test_a_completed_trial_ends_with_its_last_epoch_and_its_weights(
    books: Bookkeeper, ledger: Ledger
) -> None:
    start(books)
    for message in (epoch(1), epoch(2), COMPLETED):
        books.reported("t", message)
    record = record_of(ledger)
    assert (record.status, record.epochs, record.best_epoch) == ("completed", 3, 2)
    assert (record.best, record.final) == (BEST, {"selection/accuracy": 0.8})
    assert record.checkpoint == "/elsewhere/best.safetensors"


def test_what_comes_after_the_end_is_passed_over(books: Bookkeeper, ledger: Ledger) -> None:
    start(books)
    for message in (COMPLETED, COMPLETED, epoch(4), FAILED):
        books.reported("t", message)
    books.pruned("t", "late")
    books.failed("t", "late")
    start(books)
    assert kinds(ledger) == ["trial_started", "epoch", "trial_ended"]


def test_reports_of_a_trial_that_never_started_are_passed_over(books: Bookkeeper, ledger: Ledger) -> None:
    books.reported("t", epoch(1))
    books.pruned("t", "x")
    books.failed("t", "x")
    assert ledger.events() == []


@pytest.mark.parametrize(
    ("message", "status", "reason"),
    [
        (FAILED, "failed", "the loss is nan in epoch 3"),
        (Message(end=End.STOPPED, reason="cancelled"), "pruned", "cancelled"),
    ],
)
def test_an_end_without_weights_keeps_what_was_best(
    books: Bookkeeper, ledger: Ledger, message: Message, status: str, reason: str
) -> None:
    start(books)
    for each in (epoch(1, 0.7), epoch(2, 0.6), message):
        books.reported("t", each)
    record = record_of(ledger)
    assert (record.status, record.reason, record.epochs, record.best_epoch) == (status, reason, 2, 1)
    assert (record.best, record.checkpoint) == ({"selection/accuracy": 0.7}, None)


def test_a_scheduler_prunes_and_a_proxy_dies(books: Bookkeeper, ledger: Ledger) -> None:
    for trial in ("pruned", "failed"):
        start(books, trial)
        books.reported(trial, epoch(1))
    books.pruned("pruned", "stopped by the scheduler after epoch 1")
    books.failed("failed", "its proxy died")
    assert record_of(ledger, "pruned").status == "pruned"
    assert record_of(ledger, "failed").reason == "its proxy died"


def test_trials_of_this_search_are_counted_by_their_end(books: Bookkeeper, ledger: Ledger) -> None:
    other = Bookkeeper(ledger, search="other")
    for trial in ("a", "b", "c"):
        start(books, trial)
    start(other, "d")
    start(books, "finalist", Role.FINALIST)
    for keeper, trial in ((books, "a"), (books, "b"), (other, "d"), (books, "finalist")):
        keeper.reported(trial, COMPLETED)
    assert (books.count("completed"), books.count("running"), books.count("failed")) == (2, 1, 0)


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("status", ["running", "completed", "failed", "pruned"])
def test_only_a_finalist_without_an_end_worth_keeping_is_started_again(
    books: Bookkeeper, ledger: Ledger, role: Role, status: str
) -> None:
    start(books, role=role)
    ends = {"completed": COMPLETED, "failed": FAILED, "pruned": Message(end=End.STOPPED)}
    books.reported("t", ends.get(status, epoch(1)))
    start(books, role=role)
    again = role is not Role.SEARCH and status in ("failed", "pruned")
    assert kinds(ledger).count("trial_started") == (2 if again else 1)
    assert record_of(ledger).status == ("running" if again else status)


def test_a_completed_trial_is_replayed_to_the_letter(books: Bookkeeper, ledger: Ledger) -> None:
    start(books)
    told = [epoch(1, 0.4), epoch(2, 0.9), COMPLETED]
    for message in told:
        books.reported("t", message)
    assert heard_by_a_broker(ledger) == (told, 0)


def test_a_failed_trial_is_replayed_to_the_letter(books: Bookkeeper, ledger: Ledger) -> None:
    start(books)
    told = [epoch(1), epoch(2), FAILED]
    for message in told:
        books.reported("t", message)
    heard, queued = heard_by_a_broker(ledger)
    assert queued == 0
    assert [(m.epoch, m.metrics, m.end, m.reason) for m in heard] == [
        (m.epoch, m.metrics, m.end, m.reason) for m in told
    ]


def test_a_trial_that_failed_at_once_is_replayed_as_failed(books: Bookkeeper, ledger: Ledger) -> None:
    start(books)
    books.reported("t", FAILED)
    heard, queued = heard_by_a_broker(ledger)
    assert [(m.end, m.reason) for m in heard] == [("failed", FAILED.reason)]
    assert queued == 0


def test_a_pruned_trial_ends_with_its_last_epoch(books: Bookkeeper, ledger: Ledger) -> None:
    start(books)
    for message in (epoch(1), epoch(2, 0.3)):
        books.reported("t", message)
    books.pruned("t", "stopped by the scheduler after epoch 2")
    heard, queued = heard_by_a_broker(ledger)
    assert queued == 0
    assert [(m.epoch, m.end) for m in heard] == [(1, None), (2, "stopped")]
    assert heard[-1].metrics == {"selection/accuracy": 0.3}
    assert heard[-1].reason == "stopped by the scheduler after epoch 2"


def test_a_running_trial_goes_on_after_what_was_heard(books: Bookkeeper, ledger: Ledger) -> None:
    start(books)
    told = [epoch(1), epoch(2)]
    for message in told:
        books.reported("t", message)
    assert heard_by_a_broker(ledger) == (told, 1)


def test_history_tells_of_this_searchs_trials_alone(books: Bookkeeper, ledger: Ledger) -> None:
    start(books, "mine")
    start(books, "finalist", Role.FINALIST)
    start(Bookkeeper(ledger, search="other"), "theirs")
    books.reported("finalist", epoch(1))
    ledger.append(StageEvent(stage="cache", key="k", status="started"))
    assert history(ledger, search="s") == {"mine": []}
