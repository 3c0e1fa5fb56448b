"""Stages as jobs of a slot: what they make and what they raise comes to the driver as it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.config import DataConfig, DataName
from trainables.config.data import SplitFacts
from trainables.data import load_training
from trainables.data.splits import split_facts
from trainables.errors import ConfigError, StillhouseError, TrialFailed
from trainables.slots.job_channel import JobChannel
from trainables.slots.messages import JOB_KINDS, End, Message, Stage, StageJob
from trainables.slots.stages import stage_jobs
from trainables.slots.stages.stage_jobs import do_stage, made_of
from trainables.slots.stages.stages import STAGES, Kept, Tell
from trainables.slots.warm_state import WarmState

DIGITS = DataConfig(name=DataName.DIGITS, train_limit=60)


@pytest.fixture
def warm() -> WarmState:
    return WarmState(torch.device("cpu"))


@pytest.fixture(autouse=True)
def threads() -> Iterator[int]:
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def done(warm: WarmState, stage: Stage, request: dict[str, Any], *, wanted: bool = True) -> list[Message]:
    """All that a slot tells of a stage, which travels as plain data."""
    told: list[Message] = []

    def send(message: Message) -> bool:
        told.append(message)
        return wanted

    plain = StageJob(job_id="s", stage=stage, request=request).plain()
    job = JOB_KINDS["stage"].from_plain(plain)
    assert isinstance(job, StageJob)
    do_stage(job, warm, JobChannel(send, lambda: False))
    return [Message.from_plain(message.plain()) for message in told]


def instead(monkeypatch: pytest.MonkeyPatch, stage: Stage, does: Any) -> None:
    monkeypatch.setattr(stage_jobs, "STAGES", {**STAGES, stage: does})


def test_every_stage_has_its_function() -> None:
    assert set(STAGES) == set(Stage)


def test_what_a_stage_makes_is_in_its_last_message(warm: WarmState) -> None:
    (end,) = done(warm, Stage.SPLIT, DIGITS.plain())
    assert end.end is End.COMPLETED
    assert SplitFacts.from_plain(made_of(end)) == split_facts(load_training(DIGITS))


def test_an_error_of_ours_is_raised_again_as_it_was(warm: WarmState, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> dict[str, Any]:
        raise ConfigError("no such model", "no such file")

    instead(monkeypatch, Stage.TEACHER, fail)
    (end,) = done(warm, Stage.TEACHER, {})
    assert end.end is End.FAILED
    with pytest.raises(ConfigError, match="no such model") as raised:
        made_of(end)
    assert raised.value.problems == ("no such model", "no such file")


def test_another_error_brings_its_traceback(warm: WarmState, monkeypatch: pytest.MonkeyPatch) -> None:
    def of_the_user(*_: Any) -> dict[str, Any]:
        raise ValueError("a weight is missing")

    instead(monkeypatch, Stage.TEACHER, of_the_user)
    (end,) = done(warm, Stage.TEACHER, {})
    with pytest.raises(RuntimeError, match=r"(?s)ValueError: a weight is missing.*in of_the_user"):
        made_of(end)


def test_a_stage_that_nobody_could_do_is_an_error() -> None:
    with pytest.raises(StillhouseError, match="no slot is left"):
        made_of(Message(end=End.FAILED, reason="no slot is left", hopeless=True))


def test_epochs_are_told_and_a_stage_that_nobody_wants_ends(
    warm: WarmState, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(_request: Mapping[str, Any], tell: Tell, _kept: Kept) -> dict[str, Any]:
        for epoch in (1, 2):
            tell(epoch, {"train/loss": 0.5})
        return {}

    instead(monkeypatch, Stage.TEACHER, train)
    assert [message.epoch for message in done(warm, Stage.TEACHER, {})] == [1, 2, 0]
    *_, end = dropped = done(warm, Stage.TEACHER, {}, wanted=False)
    assert [message.epoch for message in dropped] == [1, 0]
    with pytest.raises(TrialFailed, match="nobody wants it any more"):
        made_of(end)


def test_a_stage_leaves_the_number_of_threads_as_it_was(
    warm: WarmState, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    def take_all(*_: Any) -> dict[str, Any]:
        torch.set_num_threads(threads + 3)
        return {}

    instead(monkeypatch, Stage.TEACHER, take_all)
    done(warm, Stage.TEACHER, {})
    assert torch.get_num_threads() == threads


def test_a_teacher_that_answers_is_kept_from_part_to_part_and_let_go_for_students(
    warm: WarmState, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spec: Any
) -> None:
    made: list[str] = []

    class Worker:
        def __init__(self, *given: str) -> None:
            made.append(given[1])

        def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
            return {"answer": [f"answers to {batch['shards'][0]}"]}

    monkeypatch.setattr("trainables.slots.stages.stages.TeacherWorker", Worker)
    for part in "ab":
        request = {"cache": "one", "worker": [{}, str(tmp_path), {}], "shards": part}
        (end,) = done(warm, Stage.SHARDS, request)
        assert made_of(end) == {"answer": f"answers to {part}"}
    assert made == [str(tmp_path)]
    assert warm.of_stages.keys() == ("one",)
    warm.workbench(spec)
    assert warm.of_stages.keys() == ()
