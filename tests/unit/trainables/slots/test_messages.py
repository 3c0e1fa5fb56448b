"""A message of a job: how it travels, and what can be read of it."""

from __future__ import annotations

import pickle

from tests.unit.trainables.slots.broker_messages import SOON_S, in_a_loop, lease_of, submit
from trainables.config.metrics import RankBy
from trainables.slots.broker import Broker
from trainables.slots.messages import Message

TOLD = Message(
    epoch=2,
    metrics={
        "selection/accuracy": 0.9,
        "seconds": 1.5,
        "train/images_per_s": 800.0,
        "train/kept_weak": 0.25,
        "train/loss": 0.1,
    },
)


@in_a_loop
async def test_a_broker_passes_a_message_on_as_it_is() -> None:
    broker = Broker()
    await submit(broker, "a")
    _, attempt, _ = await lease_of(broker)
    assert await broker.report("a", attempt, TOLD)
    assert await broker.next("a", 0, SOON_S) is TOLD
    assert await broker.last("a") is TOLD


@in_a_loop
async def test_a_broker_answers_with_the_very_messages_that_it_was_told_of_an_earlier_run() -> None:
    broker = Broker()
    await broker.replay("a", [TOLD])
    await submit(broker, "a")
    assert await broker.next("a", 0, SOON_S) is TOLD


def test_a_message_is_the_same_in_another_process() -> None:
    assert pickle.loads(pickle.dumps(TOLD)) == TOLD  # noqa: S301  our own, as Ray does it


def test_a_message_tells_the_figures_of_its_epoch() -> None:
    assert (TOLD.figure(RankBy.ACCURACY), TOLD.seconds, TOLD.images_per_s) == (0.9, 1.5, 800.0)
    assert TOLD.kept_fractions == {"kept_weak": 0.25}


def test_a_message_without_figures_says_so() -> None:
    empty = Message()
    assert (empty.seconds, empty.images_per_s, empty.kept_fractions) == (0.0, None, {})
    assert [empty.figure(figure) for figure in RankBy] == [None] * 3


def test_a_message_tells_the_figure_that_ranks() -> None:
    both = Message(metrics={"selection/accuracy": 0.1, "selection/knn_accuracy": 0.8})
    assert [both.figure(figure) for figure in RankBy] == [0.1, 0.8, None]
