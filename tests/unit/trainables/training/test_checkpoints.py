from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from tests.unit.full_disk import largest_file
from tests.unit.trainables.training.small_courses import same_weights, small_student, weights_of
from trainables.errors import CheckpointError
from trainables.models.weights import load_weights
from trainables.training.progress.checkpoint_paths import drop_states
from trainables.training.progress.checkpoints import CheckpointFolder, TrainingState


def some_state(epoch: int = 2) -> TrainingState:
    model = small_student()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.zeros(2, 1, 8, 8)).sum().backward()
    optimizer.step()
    best = {"selection/accuracy": 0.5}
    weights, state = weights_of(model), optimizer.state_dict()
    table, mean = {"table": torch.eye(3)}, weights_of(small_student(seed=1))
    peers = [{"precision": "fp32", "average_steps": 3}]
    return TrainingState(
        epoch, weights, state, 1, best, weights, [best] * epoch, "bf16", table, mean, 7, peers, True
    )


@pytest.fixture
def files(tmp_path: Path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "trial", spec_digest="a" * 64)


def test_a_state_comes_back_as_it_was(files: CheckpointFolder) -> None:
    state = some_state()
    files.save_state(state)
    back = files.load_state()
    assert back is not None
    assert same_weights(back.model, state.model)
    assert same_weights(back.best_model, state.best_model)
    assert str(back.optimizer) == str(state.optimizer)
    assert same_weights(back.objective, state.objective)
    assert same_weights(back.average, state.average)
    tensors = ("model", "best_model", "optimizer", "objective", "average")
    plain = [field.name for field in fields(TrainingState) if field.name not in tensors]
    assert [getattr(back, name) for name in plain] == [
        2,
        1,
        *[state.best_metrics],
        state.history,
        "bf16",
        7,
        state.peers,
        True,
    ]


def test_a_new_trial_has_no_state(files: CheckpointFolder) -> None:
    assert files.load_state() is None


def test_a_state_of_another_spec_is_ignored(files: CheckpointFolder) -> None:
    files.save_state(some_state())
    assert CheckpointFolder(files.folder, spec_digest="b" * 64).load_state() is None


def test_a_state_of_another_format_is_ignored(files: CheckpointFolder, tmp_path: Path) -> None:
    files.save_state(some_state())
    path = files.folder / "last.pt"
    document = torch.load(path, weights_only=True)
    torch.save({**document, "version": 1}, path)
    assert files.load_state() is None


@pytest.mark.parametrize("damage", ["cut short", "garbage", "empty", "a list", "a field missing"])
def test_a_damaged_state_is_named(files: CheckpointFolder, damage: str) -> None:
    files.save_state(some_state())
    path = files.folder / "last.pt"
    content, document = path.read_bytes(), torch.load(path, weights_only=True)
    match damage:
        case "cut short":
            path.write_bytes(content[: len(content) // 2])
        case "garbage":
            path.write_bytes(b"\x80\x02garbage" * 100)
        case "empty":
            path.write_bytes(b"")
        case "a list":
            torch.save([1, 2], path)
        case "a field missing":
            del document["optimizer"]
            torch.save(document, path)
    with pytest.raises(CheckpointError, match=r"trial/last\.pt is damaged.*delete it and run again"):
        files.load_state()


def test_a_write_that_fails_leaves_the_state_before_it(files: CheckpointFolder) -> None:
    files.save_state(some_state(epoch=2))
    with largest_file(1000), pytest.raises(CheckpointError, match=r"cannot write .*last\.pt.*free space"):
        files.save_state(some_state(epoch=4))
    back = files.load_state()
    assert back is not None
    assert back.epoch == 2
    assert [path.name for path in files.folder.iterdir()] == ["last.pt"]


def test_a_folder_that_cannot_be_made_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"cannot write .*file/trial/last\.pt"):
        CheckpointFolder(tmp_path / "file" / "trial", spec_digest="a" * 64).save_state(some_state())


def test_the_best_weights_are_kept_with_what_they_are(files: CheckpointFolder) -> None:
    student = small_student()
    path = files.save_best(student, {"trial_id": "kd-1"})
    other = small_student(seed=1)
    load_weights(other, path)
    assert same_weights(weights_of(other), weights_of(student))
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"trial_id": "kd-1"}


def test_a_dropped_state_leaves_the_best_weights_alone(files: CheckpointFolder) -> None:
    files.save_state(some_state())
    files.save_best(nn.Linear(1, 1), {})
    (files.folder / ".last-killed.tmp").write_bytes(b"half a state")
    files.drop_state()
    assert [path.name for path in files.folder.iterdir()] == ["best.safetensors"]
    files.drop_state()


@pytest.mark.parametrize("keep_for_forks", [True, False])
def test_sweeping_spares_the_best_weights_and_tells_what_it_freed(
    tmp_path: Path, keep_for_forks: bool
) -> None:
    files = CheckpointFolder(tmp_path, spec_digest="a" * 64, keep_all=True)
    files.save_state(some_state(epoch=2))
    files.save_state(some_state(epoch=3))
    files.save_best(nn.Linear(1, 1), {})
    size = sum(path.stat().st_size for path in tmp_path.glob("state-*.pt"))
    assert drop_states(tmp_path, keep_for_forks=keep_for_forks) == (0 if keep_for_forks else size)
    kept = ["state-000002.pt", "state-000003.pt"] if keep_for_forks else []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.safetensors", *kept]
    assert drop_states(tmp_path / "nowhere", keep_for_forks=False) == 0


def test_the_last_state_replaces_the_one_before(files: CheckpointFolder) -> None:
    files.save_state(some_state(epoch=2))
    files.save_state(replace(some_state(), epoch=3))
    back = files.load_state()
    assert back is not None
    assert back.epoch == 3
