"""The progress of a search: its counts, its best, its time left, as a table and as a line."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pytest
from rich.console import Console as RichConsole

from orchestrator.search.progress_table import SearchBoard, Slots
from orchestrator.terminal.console import QUIET_S, Console
from orchestrator.terminal.formatting import duration
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
from trainables.slots.messages import Message, TrainJob

EPOCHS = 10
BENCH = WorkbenchSpec(
    data=DataConfig(name=DataName.DIGITS),
    views=ViewsConfig(),
    view_seed=1,
    cache_uri=None,
    cache_manifest=None,
    checkpoints="students",
)


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@dataclass
class Trial:
    trial_id: str
    status: str = "RUNNING"


@pytest.fixture
def clock() -> Clock:
    return Clock()


def job_of(student: str, epochs: int = EPOCHS) -> TrainJob:
    spec = TrialSpec(
        trial_id=student,
        role=Role.SEARCH,
        objective=KdConfig(),
        student=ModelConfig(name=ModelName.MLP),
        training=TrainingConfig(epochs=epochs),
        seed=3,
    )
    return TrainJob(workbench=BENCH, trial=spec)


def epoch(number: int, accuracy: float = 0.5, *, seconds: float = 2.0, speed: float = 1000.0) -> Message:
    metrics = {"selection/accuracy": accuracy, "seconds": seconds, "train/images_per_s": speed}
    return Message(epoch=number, metrics=metrics)


def board_of(clock: Clock, *, trials: int = 4, slots: int = 2) -> SearchBoard:
    return SearchBoard(trials=trials, epochs=EPOCHS, slots=slots, clock=clock)


def begin(board: SearchBoard, *names: str) -> list[Trial]:
    trials = [Trial(name) for name in names]
    for proposal in trials:
        board.started(proposal, job_of(f"kd-{proposal.trial_id}"))
    return trials


def picture(board: SearchBoard, *, width: int = 100, height: int = 30) -> list[str]:
    out = io.StringIO()
    RichConsole(file=out, width=width, height=height).print(board)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_a_search_is_followed_by_the_figure_that_ranks(clock: Clock) -> None:
    board = board_of(clock)
    job = job_of("simreg-a")
    board.started(Trial("a"), job.with_overrides(trial=job.trial.with_overrides(rank_by="knn_accuracy")))
    for number, knn, own in ((1, 0.6, 0.1), (2, 0.8, 0.05), (3, 0.7, 0.9)):
        told = epoch(number, own)
        board.reported("a", told.with_overrides(metrics={**told.metrics, "selection/knn_accuracy": knn}))
    assert "best simreg-a 80.00 % kNN accuracy" in board.line()
    (row,) = [line.split() for line in picture(board) if line.startswith("simreg-a")]
    assert row[3:7] == ["70.00", "%", "80.00", "%"]


def test_the_line_tells_counts_best_slots_speed_and_time_left(clock: Clock) -> None:
    board = board_of(clock, trials=7)
    begin(board, "a", "b", "c", "d", "e")
    board.reported("a", epoch(10, 0.921))
    for name, status in (("a", "completed"), ("b", "pruned"), ("c", "failed")):
        board.ended(name, status)
    board.reported("d", epoch(4, 0.9, speed=2600))
    board.reported("e", epoch(6, 0.91, speed=2600))
    board.slots = Slots(up=2, busy=2)
    # Owed: 6 and 4 epochs of the running ones, 2 x 10 to come, 2 s each, by two slots.
    assert board.line() == (
        "search: 3/7 trials (1 completed, 1 pruned, 1 failed), best kd-a 92.10 %, 2 slots, 5,200 images/s, "
        "at most 40 s left"
    )


def test_before_the_first_epoch_the_line_promises_nothing(clock: Clock) -> None:
    board = board_of(clock)
    assert board.line() == "search: 0/4 trials"
    begin(board, "a")
    board.slots = Slots(up=0, busy=0)
    assert board.line() == "search: 0/4 trials, no slot is up yet"


def test_the_last_line_tells_how_long_it_took(clock: Clock) -> None:
    board = board_of(clock, trials=1)
    begin(board, "a")
    board.reported("a", epoch(10, 0.5))
    clock.now += 75
    board.ended("a", "completed")
    assert board.line() == "search: 1/1 trials (1 completed), best kd-a 50.00 %, took 75 s"


def test_time_left_is_the_bound_for_jobs_taken_from_a_list(clock: Clock) -> None:
    board = board_of(clock, trials=5)
    begin(board, "a", "b")
    assert board.left_s() is None
    board.reported("a", epoch(5))
    board.reported("b", epoch(1))
    # In epochs of 2 s: 5 and 9 owed, 3 trials of 10 to come; the longest is a whole trial.
    assert board.left_s() == pytest.approx((5 + 9 + 30 - 10) / 2 * 2 + 10 * 2)


def test_with_no_trial_to_come_the_longest_one_is_waited_for(clock: Clock) -> None:
    board = board_of(clock, trials=2)
    begin(board, "a", "b")
    board.reported("a", epoch(9))
    board.reported("b", epoch(4))
    assert board.left_s() == pytest.approx(6 * 2)
    clock.now += 1.5
    assert board.left_s() == pytest.approx(6 * 2 - 1.5)


def test_where_the_change_of_trials_takes_longer_than_training_the_pace_counts(clock: Clock) -> None:
    board = board_of(clock, trials=109, slots=1)
    for number in range(9):
        name = str(number)
        begin(board, name)
        board.reported(name, epoch(10, seconds=0.01))
        board.ended(name, "completed")
        clock.now += 5.0
    # An epoch came every 45 s / 8, since the clock went on after the last; 100 trials of 10 are owed.
    assert board.left_s() == pytest.approx(100 * 10 * 45 / 8)


def test_slots_that_come_up_later_count_from_then_on(clock: Clock) -> None:
    board = board_of(clock, trials=9, slots=4)
    begin(board, "a")
    board.reported("a", epoch(10))
    board.ended("a", "completed")
    planned = board.left_s()
    board.slots = Slots(up=1, busy=1)
    assert planned == pytest.approx((80 - 10) / 4 * 2 + 20)
    assert board.left_s() == pytest.approx(80 * 2)


def test_epochs_told_again_at_once_take_the_seconds_that_they_took_then(clock: Clock) -> None:
    board = board_of(clock, trials=1, slots=1)
    begin(board, "a")
    for number in (1, 2, 3):
        board.reported("a", epoch(number, seconds=3.0))
    assert board.left_s() == pytest.approx(7 * 3)


def test_waiting_between_epochs_counts_but_a_pause_does_not(clock: Clock) -> None:
    board = board_of(clock, trials=1, slots=1)
    (proposal,) = begin(board, "a")
    board.reported("a", epoch(1, seconds=2.0))
    clock.now += 4.0
    board.reported("a", epoch(2, seconds=2.0))
    assert board.left_s() == pytest.approx(8 * 3)
    clock.now += 1000.0
    board.started(proposal, job_of("kd-a"))
    board.reported("a", epoch(3, seconds=3.0))
    assert board.left_s() == pytest.approx(7 * 3)


def test_the_table_has_a_row_for_each_running_trial(clock: Clock) -> None:
    board = board_of(clock)
    begin(board, "a", "b", "c")
    board.reported("a", epoch(2, 0.9, speed=1500))
    board.reported("a", epoch(3, 0.85, speed=1500))
    board.ended("c", "pruned")
    board.slots = Slots(up=2, busy=1)
    clock.now += 65
    lines = picture(board)
    assert lines[0].split()[-1] == "0:01:05"
    assert "1/4 trials (1 pruned)" in lines[0]
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:-1]}
    assert rows["kd-a"] == ["kd", "3/10", "85.00", "%", "90.00", "%", "1,500"]
    assert rows["kd-b"] == ["kd", "0/10", "-", "-", "-"]
    assert "kd-c" not in rows
    assert lines[-1].startswith("best kd-a 90.00 %, 2 running, 2 slots up, 1 busy, 1,500 images/s, at most")


def test_a_paused_trial_has_no_row_and_no_speed(clock: Clock) -> None:
    board = board_of(clock)
    first, _ = begin(board, "a", "b")
    board.reported("a", epoch(1))
    first.status = "PAUSED"
    lines = picture(board)
    assert not any(line.startswith("kd-a") for line in lines)
    assert "1 running, 1 paused" in lines[-1]
    assert "images/s" not in lines[-1]


def test_a_trial_that_goes_on_as_another_student_gets_that_students_row(clock: Clock) -> None:
    board = board_of(clock)
    (proposal,) = begin(board, "a")
    board.reported("a", epoch(5, 0.9))
    board.started(proposal, job_of("kd-fork"))
    board.reported("a", epoch(6, 0.8))
    rows = [line.split() for line in picture(board) if line.startswith("kd-")]
    assert rows == [["kd-fork", "kd", "6/10", "80.00", "%", "80.00", "%", "1,000"]]
    assert "best kd-a 90.00 %" in board.line()


def test_the_table_is_no_higher_than_the_terminal(clock: Clock) -> None:
    board = board_of(clock, trials=100)
    begin(board, *(f"t{number}" for number in range(50)))
    lines = picture(board, height=20)
    assert len(lines) < 20
    assert "and 38 more running trials" in lines


@pytest.mark.parametrize("width", [40, 60, 200])
def test_names_stay_whole_on_narrow_and_wide_terminals(clock: Clock, width: int) -> None:
    board = board_of(clock)
    board.started(Trial("a"), job_of("kd-3f2a91bc0d1e"))
    lines = picture(board, width=width)
    assert all(len(line) <= width for line in lines)
    assert sum(line.startswith("kd-3f2a91bc0d1e ") for line in lines) == 1


def test_a_live_view_leaves_the_terminal_as_it_was_also_when_it_is_interrupted(clock: Clock) -> None:
    out = Terminal()
    board = board_of(clock)
    with pytest.raises(KeyboardInterrupt), Console(out=out, clock=clock).live(board):
        begin(board, "a")
        raise KeyboardInterrupt
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert out.getvalue().count(hidden) == out.getvalue().count(shown) == 1
    assert out.getvalue().index(hidden) < out.getvalue().index("kd-a") < out.getvalue().index(shown)


def test_where_nobody_watches_a_line_is_written_every_half_minute_and_at_the_end(clock: Clock) -> None:
    out = io.StringIO()
    board = board_of(clock)
    with Console(out=out, clock=clock).live(board) as show:
        for _ in range(100):
            clock.now += 1
            show()
        assert out.getvalue().splitlines() == ["search: 0/4 trials"] * int(100 / QUIET_S)
    assert len(out.getvalue().splitlines()) == int(100 / QUIET_S) + 1


def test_with_json_the_progress_of_a_search_goes_to_standard_error(clock: Clock) -> None:
    out, err = io.StringIO(), io.StringIO()
    with Console(json_only=True, out=out, err=err, clock=clock).live(board_of(clock)):
        pass
    assert (out.getvalue(), err.getvalue()) == ("", "search: 0/4 trials\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (39.2, "40 s"), (90, "90 s"), (91, "2 min"), (3541, "1 h 0 min"), (90_000, "1 d 1 h")],
)
def test_time_spans_are_rounded_up(seconds: float, text: str) -> None:
    assert duration(seconds) == text
