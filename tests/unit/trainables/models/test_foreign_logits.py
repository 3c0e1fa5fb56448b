"""Logits in any form, and factories that name the number of classes otherwise."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from pydantic import ValidationError
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from trainables.config import ModelConfig, ModelName
from trainables.errors import ConfigError
from trainables.models import build_model, check_logits
from trainables.models.embedding import classifier_of
from trainables.models.foreign.logits import LogitsHook, may_drop_outputs, with_logits
from trainables.models.weights import load_weights, save_weights, weights_digest
from trainables.training.ranks import DdpTeam

MODULE = "foreign_networks_for_tests"
SOURCE = """
from collections import OrderedDict, namedtuple
from types import SimpleNamespace
import torch
from torch import nn

Outputs = namedtuple("Outputs", ["extra", "logits"])


class Answering(nn.Module):
    def __init__(self, n_classes, form):
        super().__init__()
        self.form = form
        self.auxiliary, self.fc = nn.Linear(12, n_classes), nn.Linear(12, n_classes)

    def forward(self, images):
        x = images.flatten(1)
        logits, extra = self.fc(x), self.auxiliary(x)
        if self.form == "object":
            return SimpleNamespace(loss=None, logits=logits)
        if self.form == "named tuple":
            return Outputs(extra, logits)
        if self.form == "library object":
            return OrderedDict(loss=extra.sum(), logits=logits, hidden=x)
        if self.form == "dictionary":
            return {"features": x, "scores": logits, "classes": logits.argmax(1)}
        if self.form == "tuple":
            return x, logits
        if self.form == "tuple of one":
            return (logits,)
        if self.form == "two of a shape":
            return logits, extra
        if self.form == "two names of a shape":
            return {"student": logits, "distilled": extra}
        if self.form == "two in training":
            return (logits, extra) if self.training else logits
        if self.form == "nothing that fits":
            return [x, None]
        if self.form == "no tensor":
            return {"logits": [1.0]}
        return logits


def n(n_classes, form="tensor"):
    return Answering(n_classes, form)


def num(num_classes, form="tensor"):
    return Answering(num_classes, form)


def keyword_only(*, form="tensor", num_classes):
    return Answering(num_classes, form)


def neither():
    return Answering(4, "tensor")


def five():
    return Answering(5, "tuple of one")


def anything(**arguments):
    return n(**arguments)


def library(model_name, **arguments):
    return num(**arguments)


def both_named(num_classes, **arguments):
    return num(num_classes, **arguments)


def another_name(classes):
    return n(classes)


class AsClass(Answering):
    def __init__(self, num_classes):
        super().__init__(num_classes, "tensor")
"""
FORMS = ("object", "named tuple", "library object", "dictionary", "tuple", "tuple of one")
IMAGES = torch.rand(3, 3, 2, 2, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def _networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{MODULE}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)


def made(factory: str = "n", output: int | str | None = None, **arguments: Any) -> Any:
    config = ModelConfig(factory=f"{MODULE}:{factory}", arguments=arguments, output=output)
    return build_model(config, n_classes=4, in_channels=3)


def logits_of(network: Any, images: Tensor = IMAGES) -> Tensor:
    logits: Tensor = network.fc(images.flatten(1))
    return logits


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("training", [False, True])
def test_logits_are_found_in_each_form(form: str, training: bool) -> None:
    network = made(form=form)
    check_logits(network, IMAGES, n_classes=4)
    network.train(training)
    assert torch.equal(network(IMAGES), logits_of(network))


@pytest.mark.parametrize(
    ("form", "output"),
    [
        ("two of a shape", 0),
        ("two of a shape", -2),
        ("two names of a shape", "student"),
        ("two names of a shape", 0),
        ("two in training", 0),
        ("named tuple", "logits"),
        ("named tuple", 1),
        ("object", "logits"),
    ],
)
def test_the_file_says_which_output_the_logits_are(form: str, output: int | str) -> None:
    network = made(form=form, output=output)
    for training in (False, True):
        assert torch.equal(network.train(training)(IMAGES), logits_of(network))


@pytest.mark.parametrize(
    ("form", "output", "message"),
    [
        ("two of a shape", None, "a tuple in evaluation mode, in which 0, 1 are all .* Bx4; .*`output: 0`"),
        ("two names of a shape", None, "student, distilled are all .*`output: student`"),
        ("two in training", None, "a tuple in training mode, in which 0, 1 are all .*`output: 0`"),
        ("nothing that fits", None, "a list in evaluation mode, in which nothing is called `logits` .* 0, 1"),
        ("no tensor", None, "its logits are a list; they must be a tensor"),
        ("dictionary", "logit", "there is no 'logit'; `output` may be features, scores, classes"),
        ("tuple", 2, "there is no 2; `output` may be 0, 1"),
    ],
)
def test_what_cannot_be_known_is_said_with_the_line_to_write(
    form: str, output: int | str | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=f"^student: Answering returns .*{message}"):
        check_logits(made(form=form, output=output), IMAGES, n_classes=4, name="student")


@pytest.mark.parametrize(
    "factory", ["n", "num", "keyword_only", "neither", "anything", "both_named", "AsClass"]
)
def test_a_factory_may_call_the_number_of_classes_as_it_likes(factory: str) -> None:
    check_logits(made(factory), IMAGES, n_classes=4)


def test_a_library_builder_that_takes_anything_is_told_the_number_in_the_file() -> None:
    check_logits(made("library", model_name="small", num_classes=4), IMAGES, n_classes=4)


def test_the_number_of_classes_is_checked_whoever_says_it() -> None:
    with pytest.raises(ConfigError, match=r"shape Bx4; it holds 0"):
        check_logits(made("five"), IMAGES, n_classes=4)
    with pytest.raises(ConfigError, match=r"of shape \(3, 9\) in evaluation mode"):
        check_logits(made("library", model_name="small", num_classes=9), IMAGES, n_classes=4)


def test_a_number_of_classes_that_the_factory_is_given_may_not_stand_in_the_file() -> None:
    with pytest.raises(ConfigError, match="may not hold num_classes; Stillhouse itself passes that"):
        made("num", num_classes=4)


def test_a_factory_with_a_name_of_its_own_is_told_what_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"called with no arguments: .*'classes'"):
        made("another_name")
    check_logits(made("another_name", classes=4), IMAGES, n_classes=4)


def test_no_network_by_name_has_an_output_to_choose() -> None:
    with pytest.raises(ValidationError, match="`output` is for a `factory`"):
        ModelConfig(name=ModelName.MLP, output=0)


def test_configurations_that_say_nothing_of_it_are_known_as_before() -> None:
    assert "output" not in ModelConfig(factory="a:b").plain()


def test_auxiliary_logits_of_torchvision_are_dropped_in_training() -> None:
    config = ModelConfig(
        name=ModelName.TORCHVISION, variant="googlenet", arguments={"aux_logits": True, "init_weights": False}
    )
    network: Any = build_model(config, n_classes=4, in_channels=3)
    check_logits(network, torch.rand(2, 3, 32, 32), n_classes=4)
    assert isinstance(network.train()(torch.rand(2, 3, 32, 32)), Tensor)


def test_the_weights_keep_their_names_on_disk_and_in_digests(tmp_path: Path) -> None:
    network, plain = made(form="tuple"), made()
    assert list(network.state_dict()) == list(plain.state_dict())
    save_weights(plain, tmp_path / "weights.safetensors", {})
    load_weights(network, tmp_path / "weights.safetensors")
    assert weights_digest(network) == weights_digest(plain)


@pytest.mark.parametrize("form", ["tuple", "dictionary", "library object", "named tuple"])
def test_such_a_network_can_be_exported_and_compiled(form: str) -> None:
    network = made(form=form).eval()
    program = torch.export.export(network, (IMAGES,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    images = torch.rand(5, 3, 2, 2)
    torch.testing.assert_close(program.module()(images), logits_of(network, images))
    compiled: Any = torch.compile(network, backend="eager")
    torch.testing.assert_close(compiled(images), logits_of(network, images))


@pytest.mark.parametrize("copy", [deepcopy, AveragedModel])
def test_copies_and_running_means_give_logits_too(copy: Any) -> None:
    network = made(form="tuple")
    assert torch.equal(copy(network)(IMAGES), logits_of(network))


def test_the_embedding_is_what_the_classifier_is_given() -> None:
    network = made(form="tuple")
    inputs: list[Tensor] = []
    classifier_of(network, 4).register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    logits = network(IMAGES)
    assert torch.equal(logits, logits_of(network))
    assert torch.equal(inputs[0], IMAGES.flatten(1))


@pytest.fixture
def _team_of_one(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("_team_of_one")
def test_workers_that_share_batches_do_not_wait_for_dropped_heads() -> None:
    network = made(form="two in training", output=0).train()
    forward = DdpTeam().wrap(network, network)
    for _ in range(3):  # without care the second step fails
        torch.autograd.backward((forward(IMAGES) + forward(IMAGES)).sum())
    assert network.fc.weight.grad is not None
    assert network.auxiliary.weight.grad is None


def test_only_foreign_networks_may_drop_outputs() -> None:
    assert may_drop_outputs(nn.Sequential(OrderedDict(network=made())))
    assert not may_drop_outputs(build_model(ModelConfig(name=ModelName.MLP), n_classes=4, in_channels=3))


def test_a_network_that_gives_a_tensor_is_left_alone() -> None:
    network = with_logits(nn.Identity(), n_classes=4, which="logits")
    assert network(IMAGES) is IMAGES
    assert LogitsHook(4, None)(network, (), IMAGES) is None
