"""What a slot does with students that share a pack, without Ray; the broker is in test_broker_packs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.local_slot import LocalSlot, Told
from tests.unit.trainables.training.packs.packed_courses import apart
from trainables.config import (
    CeConfig,
    DataConfig,
    DataName,
    ModelConfig,
    ModelName,
    Role,
    TrainingConfig,
    TrialSpec,
    ViewsConfig,
    WorkbenchSpec,
)
from trainables.config.metrics import LANES, slot_seconds
from trainables.errors import StorageError
from trainables.slots.messages import End, Lease, Message, TrainJob
from trainables.slots.warm_state import WarmState
from trainables.training.packs.measure import PackChoice
from trainables.training.packs.step import LaneStep
from trainables.training.progress.checkpoints import CheckpointFolder

pytestmark = pytest.mark.usefixtures("one_thread")

STUDENT = ModelConfig(name=ModelName.CONVNET, width=4)
TRAINING = TrainingConfig(epochs=4, batch_size=20, checkpoint_every=1, precision="fp32")


class Killed(BaseException):
    """A worker that dies."""


@pytest.fixture
def spec(tmp_path: Path) -> WorkbenchSpec:
    return WorkbenchSpec(
        data=DataConfig(name=DataName.DIGITS, train_limit=100),
        views=ViewsConfig(),
        view_seed=1,
        cache_uri=None,
        cache_manifest=None,
        checkpoints=str(tmp_path / "students"),
    )


def job(spec: WorkbenchSpec, number: int, **training: Any) -> TrainJob:
    trial = TrialSpec(
        trial_id=f"ce-{number}",
        role=Role.SEARCH,
        objective=CeConfig(),
        student=STUDENT,
        training=TRAINING.with_overrides(**training),
        seed=number,
    )
    return TrainJob(workbench=spec, trial=trial)


def elsewhere(spec: WorkbenchSpec, name: str) -> WorkbenchSpec:
    """The same workbench with checkpoints in a folder of their own."""
    return spec.with_overrides(checkpoints=str(Path(spec.checkpoints).parent / name))


def kept(told: Told) -> dict[str, torch.Tensor]:
    assert told.end.checkpoint is not None
    state: dict[str, torch.Tensor] = load_file(told.end.checkpoint)
    return state


def test_students_that_fit_are_trained_together_and_kept(spec: WorkbenchSpec) -> None:
    packed, alone = LocalSlot(), LocalSlot(students=1)
    packed.run(*(job(spec, n, lr=0.02 * (n + 1)) for n in range(3)))
    alone.run(*(job(elsewhere(spec, "alone"), n, lr=0.02 * (n + 1)) for n in range(3)))
    assert packed.alone_jobs == []
    assert alone.alone_jobs == ["ce-0", "ce-1", "ce-2"]
    for name, told in packed.told.items():
        assert told.end.end is End.COMPLETED
        assert [message.epoch for message in told.messages] == [1, 2, 3, 4]
        assert told.lanes == [3.0] * 4
        assert alone.told[name].lanes == [None] * 4
        assert told.end.best_epoch == alone.told[name].end.best_epoch
        assert apart(kept(told), kept(alone.told[name])) < 1e-3
        assert not list(Path(str(told.end.checkpoint)).parent.glob("last*"))


def test_a_lane_that_is_free_takes_the_next_student_while_the_others_go_on(spec: WorkbenchSpec) -> None:
    slot = LocalSlot(students=2)
    slot.run(job(spec, 0, epochs=1), job(spec, 1, epochs=5), job(spec, 2, epochs=2), job(spec, 3, epochs=2))
    assert {name: told.end.end for name, told in slot.told.items()} == dict.fromkeys(
        (f"ce-{n}" for n in range(4)), End.COMPLETED
    )
    assert slot.told["ce-1"].lanes == [2.0] * 5  # beside 0, then 2, then 3
    assert slot.alone_jobs == []


def test_a_student_that_diverges_takes_no_other_with_it(spec: WorkbenchSpec) -> None:
    slot, others = LocalSlot(), LocalSlot()
    slot.run(job(spec, 0), job(spec, 1, lr=100.0, momentum=0.99, epochs=40), job(spec, 2))
    others.run(job(elsewhere(spec, "two"), 0), job(elsewhere(spec, "two"), 2))
    assert slot.told["ce-1"].end.end is End.FAILED
    assert "a lower l" in str(slot.told["ce-1"].end.reason)
    for name in ("ce-0", "ce-2"):
        assert slot.told[name].end.end is End.COMPLETED
        assert apart(kept(slot.told[name]), kept(others.told[name])) < 1e-3


def test_a_student_that_nobody_wants_leaves_within_the_epoch(spec: WorkbenchSpec) -> None:
    slot = LocalSlot()

    def on_message(name: str, message: Message) -> bool:
        if name == "ce-0" and message.epoch == 2:
            slot.unwanted.add("ce-1")
        return True

    slot.on_message = on_message
    slot.run(job(spec, 0), job(spec, 1), job(spec, 2))
    assert slot.told["ce-1"].end.end is End.STOPPED
    assert slot.told["ce-1"].end.epoch == 2
    assert [told.end.end for name, told in slot.told.items() if name != "ce-1"] == [End.COMPLETED] * 2


def test_a_slot_that_died_goes_on_with_all_students_of_its_pack(spec: WorkbenchSpec) -> None:
    whole, slot = LocalSlot(), LocalSlot()
    whole.run(*(job(elsewhere(spec, "whole"), n) for n in range(3)))

    def dies(name: str, message: Message) -> bool:
        if (name, message.epoch) == ("ce-1", 3):
            raise Killed
        return True

    slot.on_message = dies
    with pytest.raises(Killed):
        slot.run(*(job(spec, n) for n in range(3)))
    slot.on_message = lambda *_: True
    slot.run(*(job(spec, n) for n in range(3)), attempt=2)
    assert slot.alone_jobs == []
    for name, told in slot.told.items():
        assert [message.epoch for message in told.messages] == [1, 2, 3, 4]
        assert apart(kept(told), kept(whole.told[name])) < 1e-3


def test_a_student_whose_training_began_alone_goes_on_alone(spec: WorkbenchSpec) -> None:
    first = LocalSlot(students=1)
    first.unwanted.add("never")

    def on_message(name: str, message: Message) -> bool:
        if message.epoch == 2:
            first.unwanted.add(name)
        return True

    first.on_message = on_message
    first.run(job(spec, 1))
    slot = LocalSlot()
    slot.told = first.told
    slot.run(job(spec, 0), job(spec, 1))
    assert slot.alone_jobs == ["ce-1"]
    assert [told.end.end for told in slot.told.values()] == [End.COMPLETED] * 2
    assert slot.told["ce-1"].lanes == [None] * 4


def test_what_does_not_fit_is_trained_alone(spec: WorkbenchSpec) -> None:
    slot = LocalSlot()
    slot.more = lambda *_: []  # type: ignore[method-assign]
    slot.run(job(spec, 0, freeze=["0"]), job(spec, 1))
    assert slot.alone_jobs == ["ce-0"]
    assert slot.told["ce-1"].lanes == [1.0] * 4


def test_a_step_that_fails_for_all_has_each_trained_alone(
    spec: WorkbenchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise torch.OutOfMemoryError("no room")

    slot = LocalSlot()
    slot.warm.pack_choice(job(spec, 0).trial, spec, 8)
    monkeypatch.setattr(LaneStep, "make", fails)
    slot.run(*(job(spec, n) for n in range(3)))
    assert slot.alone_jobs == ["ce-0", "ce-1", "ce-2"]
    assert [told.end.end for told in slot.told.values()] == [End.COMPLETED] * 3


def test_a_state_that_cannot_be_kept_ends_the_search(
    spec: WorkbenchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(CheckpointFolder, "save_state", full)
    slot = LocalSlot()
    slot.run(job(spec, 0), job(spec, 1))
    assert [(told.end.end, told.end.hopeless) for told in slot.told.values()] == [(End.FAILED, True)] * 2


def test_a_worker_died_in_it_so_it_is_trained_alone(spec: WorkbenchSpec) -> None:
    lease = Lease(job=job(spec, 0).plain(), attempt=2, alone=True)
    assert not LocalSlot().do(lease)


def test_auto_measures_once_and_what_it_chose_is_agreed_by_all(spec: WorkbenchSpec) -> None:
    said: dict[str, str] = {}

    def agree(key: str, find: Callable[[], str]) -> str:
        if key not in said:
            said[key] = find()
        return said[key]

    warm = WarmState(torch.device("cpu"), agree=agree)
    trial = job(spec, 0).trial
    choice = warm.pack_choice(trial, spec, "auto")
    (key,) = (key for key in said if key.startswith("pack/"))
    assert PackChoice.read(said[key]) == choice
    said[key] = "4 mapped"
    other = WarmState(torch.device("cpu"), agree=agree)
    assert str(other.pack_choice(trial, spec, "auto")) == "4 mapped"


def test_how_a_student_was_trained_stands_beside_its_precision(spec: WorkbenchSpec) -> None:
    slot = LocalSlot()
    slot.run(job(spec, 1, freeze=["0"]), job(spec, 0))
    said = {name: {message.precision for message in told.messages} for name, told in slot.told.items()}
    assert said == {"ce-0": {"fp32 (asked for), in a pack"}, "ce-1": {"fp32 (asked for)"}}


def test_an_epoch_in_a_pack_takes_its_part_of_the_slots_time() -> None:
    assert slot_seconds({"seconds": 6.0, LANES: 3.0}) == 2.0
    assert slot_seconds({"seconds": 6.0}) == 6.0
    assert slot_seconds({}) == 0.0
