"""Weights on disk: written whole, read strictly, never as objects."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn

from trainables.config import ModelConfig, ModelName
from trainables.errors import CheckpointError
from trainables.models import build_model
from trainables.models.weights import count_parameters, load_weights, save_weights, weights_digest


def network(seed: int = 0, *, units: int = 5) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, units), nn.BatchNorm1d(units), nn.Linear(units, 2))


def test_parameters_are_counted_without_buffers() -> None:
    assert count_parameters(network()) == 3 * 5 + 5 + 2 * 5 + 5 * 2 + 2


def test_weights_survive_a_round_trip_with_their_metadata(tmp_path: Path) -> None:
    path = tmp_path / "new" / "student.safetensors"
    save_weights(network(1), path, {"trial": "t1"})
    other = network(2)
    load_weights(other, path)
    assert weights_digest(other) == weights_digest(network(1))
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"trial": "t1"}
    assert [entry.name for entry in path.parent.iterdir()] == ["student.safetensors"]


def test_saving_replaces_an_older_file(tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    save_weights(network(1), path, {})
    save_weights(network(2), path, {})
    other = network(3)
    load_weights(other, path)
    assert weights_digest(other) == weights_digest(network(2))


def test_a_failed_save_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        save_weights(network(), path, {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["student.safetensors"]


def test_weights_that_two_names_share_are_kept(tmp_path: Path) -> None:
    def tied(seed: int) -> nn.Sequential:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
        return model

    save_weights(tied(0), tmp_path / "tied.safetensors", {})
    other = tied(1)
    load_weights(other, tmp_path / "tied.safetensors")
    assert weights_digest(other) == weights_digest(tied(0))
    assert other[0].weight is other[1].weight


def test_weights_of_a_network_fit_it_behind_a_resizing_layer(tmp_path: Path) -> None:
    plain, foreign = ModelConfig(name=ModelName.CONVNET, width=2), tmp_path / "foreign.pt"
    trained = build_model(plain, n_classes=3, in_channels=1)
    torch.save(trained.state_dict(), foreign)
    resized = build_model(plain.with_overrides(resolution=12), n_classes=3, in_channels=1)
    load_weights(resized, foreign)
    own = tmp_path / "own.safetensors"
    save_weights(resized, own, {})
    again = build_model(plain.with_overrides(resolution=12), n_classes=3, in_channels=1)
    load_weights(again, own)
    images = torch.rand(2, 1, 12, 12)
    for model in (trained, resized, again):
        model.eval()
    assert torch.equal(resized(images), trained(images))
    assert torch.equal(again(images), trained(images))
    *_, last = state = trained.state_dict()
    del state[last]
    torch.save(state, foreign)
    with pytest.raises(CheckpointError, match=rf"1 missing: network\.{last}"):
        load_weights(again, foreign)


def test_weights_in_another_memory_layout_are_kept(tmp_path: Path) -> None:
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    digest = weights_digest(model)
    assert digest == weights_digest(model.to(memory_format=torch.contiguous_format))
    save_weights(model.to(memory_format=torch.channels_last), tmp_path / "a.safetensors", {})
    other = nn.Conv2d(3, 4, 3)
    load_weights(other, tmp_path / "a.safetensors")
    assert weights_digest(other) == digest


def prefixed(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in state.items()}


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"epoch": 240, "model": state, "best_acc": torch.tensor(0.7)},
        lambda state: OrderedDict((f"module.{name}", value) for name, value in state.items()),
        lambda state: {"ema": state, "step": 7},
        lambda state: {"model": {"state_dict": prefixed(state, "_orig_mod.module.")}, "lr": 0.1},
        lambda state: {"state_dict": prefixed(state, "model.backbone."), "hyper_parameters": {"lr": 0.1}},
        lambda state: {**prefixed(state, "module."), "n_averaged": torch.tensor(3)},
        lambda state: {
            name if name.startswith("2.") else f"backbone.{name}": value for name, value in state.items()
        },
    ],
    ids=[
        "bare",
        "state_dict",
        "model",
        "DataParallel",
        "ema",
        "compiled and parallel, nested",
        "Lightning",
        "running mean",
        "a head beside a backbone",
    ],
)
def test_foreign_checkpoints_are_read(tmp_path: Path, wrap: Any, suffix: str) -> None:
    path = tmp_path / f"teacher{suffix}"
    torch.save(wrap(network(1).state_dict()), path)
    other = network(2)
    load_weights(other, path)
    assert weights_digest(other) == weights_digest(network(1))


def test_prefixes_are_taken_off_in_safetensors_and_before_a_resizing_layer(tmp_path: Path) -> None:
    plain = ModelConfig(name=ModelName.CONVNET, width=2)
    trained = build_model(plain, n_classes=3, in_channels=1)
    safetensors.torch.save_file(prefixed(trained.state_dict(), "module."), tmp_path / "a.safetensors")
    resized = build_model(plain.with_overrides(resolution=12), n_classes=3, in_channels=1)
    load_weights(resized, tmp_path / "a.safetensors")
    assert weights_digest(resized) == weights_digest(nn.ModuleDict({"network": trained}))


def test_prefixes_that_are_the_networks_own_stay(tmp_path: Path) -> None:
    own = nn.ModuleDict({"model": nn.ModuleDict({"backbone": network(1)})})
    for name, state in (("own", own.state_dict()), ("parallel", prefixed(own.state_dict(), "module."))):
        torch.save(state, tmp_path / f"{name}.pt")
        other = nn.ModuleDict({"model": nn.ModuleDict({"backbone": network(2)})})
        load_weights(other, tmp_path / f"{name}.pt")
        assert weights_digest(other) == weights_digest(own)


def test_a_head_of_other_classes_is_refused_with_what_mends_it(tmp_path: Path) -> None:
    of_four, of_nine = (
        build_model(ModelConfig(name=ModelName.CONVNET, width=2), n_classes=n, in_channels=1) for n in (4, 9)
    )
    torch.save(of_nine.state_dict(), tmp_path / "nine.pt")
    with pytest.raises(CheckpointError) as caught:
        load_weights(of_four, tmp_path / "nine.pt")
    message = str(caught.value)
    assert "is of 9 classes, the data set has 4. Where these are among the 9, name" in message
    assert "in the order of its outputs below the teacher: `classes: [...]`" in message


def test_a_checkpoint_from_before_batch_norms_counter_is_read(tmp_path: Path) -> None:
    state = network(1).state_dict()
    del state["1.num_batches_tracked"]
    torch.save(state, tmp_path / "old.pt")
    other = network(2)
    load_weights(other, tmp_path / "old.pt")
    assert torch.equal(other.get_parameter("0.weight"), network(1).get_parameter("0.weight"))


def test_a_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "whole.pt")
    with pytest.raises(CheckpointError, match=r"weights_only refused .*whole\.pt: it holds pickled objects"):
        load_weights(network(), tmp_path / "whole.pt")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.pt", b""),
        ("a.pt", b"not a checkpoint"),
        ("a.pt", b"PK\x03\x04 not a zip"),
        ("a.safetensors", b""),
        ("a.safetensors", b"not a checkpoint at all"),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name}"):
        load_weights(network(), tmp_path / name)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_cut_short_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut{suffix}"
    if suffix == ".pt":
        torch.save(network().state_dict(), path)
    else:
        save_weights(network(), path, {})
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match=rf"cut{suffix}.* (copy|save)"):
        load_weights(network(), path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list; expected a state dict"),
        ({"optimizer": 1, "epoch": 2}, "a mapping with the keys 'optimizer', 'epoch'; expected a state dict"),
        ({}, r"a mapping with the keys \(none\)"),
    ],
)
def test_what_is_no_state_dict_is_described(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=message):
        load_weights(network(), tmp_path / "a.pt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint .*nothing\.pt"):
        load_weights(network(), tmp_path / "nothing.pt")


def test_an_unknown_suffix_names_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"suffix '\.bin'; readable are \.safetensors, \.pt and \.pth"):
        load_weights(network(), tmp_path / "a.bin")


def test_a_checkpoint_of_another_model_says_what_differs_and_changes_nothing(tmp_path: Path) -> None:
    model = network(1)
    digest = weights_digest(model)
    state = network(2, units=7).state_dict()
    state["extra"] = state.pop("2.bias")
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, tmp_path / "other.pt")
    message = str(caught.value)
    assert "does not fit Sequential: 1 missing: 2.bias; 1 unexpected: extra; 7 of another shape: " in message
    assert "0.weight is (7, 3), the model's is (5, 3)" in message
    assert " and 2 more. Check the model's name" in message
    assert weights_digest(model) == digest


def test_a_digest_depends_on_values_names_and_types() -> None:
    digests = {
        weights_digest(network(0)),
        weights_digest(network(1)),
        weights_digest(network(0).double()),
        weights_digest(network(0).bfloat16()),
        weights_digest(nn.ModuleDict({"inner": network(0)})),
    }
    assert len(digests) == 5


def test_a_digest_is_the_same_on_every_run() -> None:
    model = nn.Linear(2, 1)
    nn.init.constant_(model.weight, 0.5)
    nn.init.zeros_(model.bias)
    assert weights_digest(model) == "948c300be821e9ef996a0ff2bc88dcfe3ed1581cb26c62704afe7fabda6907b6"


def test_state_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    class Odd(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"steps": 1}

    with pytest.raises(CheckpointError, match="Odd keeps _extra_state, a dict, in its state dict"):
        save_weights(Odd(2, 2), tmp_path / "odd.safetensors", {})
