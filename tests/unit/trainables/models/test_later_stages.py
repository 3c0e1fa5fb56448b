"""What follows a stage, as a network of its own: the same numbers, those parameters alone, or a refusal."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.unit.trainables.models.tapped_networks import CLASSES, RESNET, built, images, tap_of
from trainables.config import ModelConfig, ModelName
from trainables.errors import TrialFailed
from trainables.models import build_model
from trainables.models.features.later_stages import LaterStages, later_stages
from trainables.models.foreign.logits import with_logits
from trainables.training.learners.ema import WeightAverage

# One of each family: what is deeper repeats the same blocks.
OURS = (
    *(ModelName.CONVNET, ModelName.RESNET8, ModelName.RESNET8X4, ModelName.RESNET50, ModelName.WRN_16_1),
    *(ModelName.VGG8, ModelName.MOBILENETV2, ModelName.SHUFFLENETV1, ModelName.SHUFFLENETV2),
)
NARROW = {"width": 4}


def behind(
    network: nn.Module, stage: str, *names: str, side: int = 32, stated: Mapping[str, str] | None = None
) -> LaterStages:
    return later_stages(
        network,
        stage,
        names or ("last", "embedding"),
        n_classes=CLASSES,
        input_shape=(3, side, side),
        stated=stated or {},
    )


def seen(
    network: nn.Module,
    *names: str,
    side: int = 32,
    batch: int = 3,
    stated: Mapping[str, str] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """What a network gives for some images."""
    shown = images(batch, side)
    return tap_of(network, *names, side=side, stated=stated or {}).during(lambda: network(shown))


def stages(network: nn.Module, side: int = 32) -> tuple[str, ...]:
    return tap_of(network, "stages", side=side).names


def check_all_stages(network: nn.Module, side: int = 32) -> None:
    """Raises unless what follows each stage gives what the network gives, and holds nothing else."""
    network.eval()
    names = stages(network, side)
    logits_BC, features = seen(network, *names, "last", "embedding", side=side)
    n_later = None
    for stage in names:
        branch = behind(network, stage, side=side)
        own_BC, own = branch(features[stage])
        torch.testing.assert_close(own_BC, logits_BC, rtol=1e-6, atol=1e-6)
        assert set(own) == set(branch.shapes) == {"last", "embedding"}
        for name, value in own.items():
            torch.testing.assert_close(value, features[name], rtol=1e-6, atol=1e-6)
        used = parameters_used(network, features[stage].shape, names, stage, side)
        assert sum(parameter.numel() for parameter in branch.parameters()) == used
        assert n_later is None or used < n_later
        n_later = used


def parameters_used(
    network: nn.Module, shape: torch.Size, names: tuple[str, ...], stage: str, side: int
) -> int:
    """Numbers in the parameters whose gradient comes from behind a stage, seen in a backward pass."""
    tap, shown = tap_of(network, *names, side=side), images(3, side)
    logits_BC, features = tap.during(lambda: network(shown))
    map_BCHW = features[stage]
    assert map_BCHW.shape == shape
    parameters = list(network.parameters())
    everything = torch.autograd.grad(logits_BC.sum(), parameters, allow_unused=True, retain_graph=True)
    before = torch.autograd.grad(map_BCHW.sum(), parameters, allow_unused=True)
    counted = zip(parameters, everything, before, strict=True)
    return sum(one.numel() for one, late, early in counted if late is not None and early is None)


@pytest.mark.parametrize("name", OURS)
def test_what_follows_each_stage_of_our_networks_gives_their_logits(name: ModelName) -> None:
    check_all_stages(built(name=name, **NARROW), side=16)


def test_a_size_that_decides_the_way_is_that_of_the_images() -> None:
    network = built(name=ModelName.VGG8, **NARROW).eval()
    for side, last in ((32, 4), (64, 4)):
        branch = behind(network, "stage2", side=side)
        logits_BC, features = seen(network, "stage2", side=side)
        torch.testing.assert_close(branch(features["stage2"])[0], logits_BC)
        assert branch.shapes["last"][1:] == (last, last)


@pytest.mark.parametrize("variant", ["resnet18", "mobilenet_v3_small", "efficientnet_b0", "densenet121"])
def test_what_follows_each_stage_of_torchvisions_networks_gives_their_logits(variant: str) -> None:
    pytest.importorskip("torchvision")
    check_all_stages(built(name=ModelName.TORCHVISION, variant=variant), side=64)


@pytest.mark.parametrize("variant", ["resnet10t", "convnext_atto", "mobilenetv3_small_050"])
def test_what_follows_each_stage_of_timms_networks_gives_their_logits(variant: str) -> None:
    pytest.importorskip("timm")
    check_all_stages(built(name=ModelName.TIMM, variant=variant), side=64)


def test_what_is_not_the_logits_is_left_behind() -> None:
    pytest.importorskip("torchvision")
    arguments = {"aux_logits": True, "init_weights": False}
    network = built(name=ModelName.TORCHVISION, variant="googlenet", arguments=arguments).eval()
    logits_BC, features = seen(network, "stage2", side=64)
    branch = behind(network, "stage2", side=64)
    torch.testing.assert_close(branch(features["stage2"])[0], logits_BC)
    assert not [name for name, _ in branch.named_parameters() if "aux" in name]


def test_a_network_of_tokens_has_no_stage_to_begin_at() -> None:
    pytest.importorskip("timm")
    network = built(name=ModelName.TIMM, variant="vit_tiny_patch16_224", arguments={"img_size": 32})
    with pytest.raises(
        TrialFailed, match=r"VisionTransformer has no feature 'stage1'; it has stem, .*choose"
    ):
        behind(network, "stage1")
    with pytest.raises(
        TrialFailed, match=r"VisionTransformer: a branch begins at one map .*'tokens' is none"
    ):
        behind(network, "tokens", "embedding")


def test_what_follows_the_patches_of_a_vision_transformer_is_all_of_it() -> None:
    pytest.importorskip("timm")
    arguments = {"img_size": 32}
    network = built(name=ModelName.TIMM, variant="vit_tiny_patch16_224", arguments=arguments).eval()
    logits_BC, features = seen(network, "stem")
    branch = behind(network, "stem", "embedding", "tokens")
    own_BC, own = branch(features["stem"])
    torch.testing.assert_close(own_BC, logits_BC)
    assert own["tokens"].shape == (3, 5, 192)
    assert "parts.cls_token" in branch.state_dict()


class Users(nn.Module):
    """As people write networks: functions, a size of the batch, dropout, weights of its own, dictionaries."""

    scale_C: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.SiLU(inplace=True))
        self.second = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8))
        self.third = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8))
        self.gain = nn.Parameter(torch.full((8, 1, 1), 1.5))
        self.register_buffer("scale_C", torch.rand(8), persistent=False)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, shown: Tensor) -> dict[str, Tensor]:
        x = F.silu(self.second(self.first(shown)), inplace=True)
        x = F.hardswish(self.third(x) * self.gain, inplace=True)
        pooled = F.adaptive_avg_pool2d(x, 1).view(shown.size(0), -1) * self.scale_C
        pooled = F.dropout(pooled, 0.5, training=self.training)
        return {"logits": self.fc(pooled), "other": pooled}


def users() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return with_logits(Users(), n_classes=CLASSES, which=None)


USERS = {"stage1": "first", "stage2": "second", "stage3": "third"}


def test_a_users_network_is_followed_through_functions_sizes_and_a_dictionary() -> None:
    network = users().eval()
    logits_BC, features = seen(network, *USERS, stated=USERS)
    assert (features["stage3"] < 0).any()
    for stage in USERS:
        branch = behind(network, stage, "embedding", stated=USERS)
        given_BCHW = features[stage].clone()
        torch.testing.assert_close(branch(given_BCHW)[0], logits_BC, rtol=1e-6, atol=1e-6)
        assert torch.equal(given_BCHW, features[stage])
    names = {name for name, _ in behind(network, "stage3", "embedding", stated=USERS).named_parameters()}
    assert names == {"parts.gain", "parts.fc.weight", "parts.fc.bias"}


def test_a_factorys_network_behind_a_layer_that_resizes_is_followed() -> None:
    network = build_model(
        ModelConfig(factory=f"{__name__}:users_own", resolution=24), n_classes=CLASSES, in_channels=3
    )
    network.eval()
    logits_BC, features = seen(network, "stage2", stated=USERS)
    branch = behind(network, "stage2", "last", stated=USERS)
    own_BC, own = branch(features["stage2"])
    torch.testing.assert_close(own_BC, logits_BC)
    assert own["last"].shape == (3, 8, 6, 6)


def users_own() -> nn.Module:
    return Users()


def test_dropout_behind_the_stage_is_on_in_training_alone() -> None:
    network = users()
    branch = behind(network, "stage3", "embedding", stated=USERS)
    assert branch.training
    map_BCHW = seen(network.eval(), "stage3", stated=USERS)[1]["stage3"]
    assert not torch.equal(branch(map_BCHW)[0], branch(map_BCHW)[0])
    branch.eval()
    assert torch.equal(branch(map_BCHW)[0], branch(map_BCHW)[0])


class Overwriting(nn.Module):
    """Activations that change what they are given, and are not the same when they are done twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, stride=2)
        self.swish, self.act = nn.SiLU(inplace=True), nn.SiLU(inplace=True)
        self.fc = nn.Linear(4, CLASSES)

    def forward(self, shown: Tensor) -> Tensor:
        x = self.act(self.second(self.swish(self.first(shown))))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def test_a_stage_that_is_overwritten_is_taken_as_it_is_then_and_not_overwritten_again() -> None:
    network = Overwriting().eval()
    paths = {"stage1": "first", "stage2": "second"}
    logits_BC, features = seen(network, "stage1", "stage2", stated=paths)
    for stage in paths:
        branch = behind(network, stage, "embedding", stated=paths)
        assert not branch.overwrites
        torch.testing.assert_close(branch(features[stage])[0], logits_BC, rtol=1e-6, atol=1e-6)


def test_a_map_that_would_be_overwritten_is_copied_before() -> None:
    network = Overwriting().eval()
    logits_BC, features = seen(network, "stage1.pre")
    branch = behind(network, "stage1.pre", "embedding", "last")
    assert branch.overwrites
    before = features["stage1.pre"].clone()
    own_BC, own = branch(features["stage1.pre"])
    torch.testing.assert_close(own_BC, logits_BC, rtol=1e-6, atol=1e-6)
    assert torch.equal(features["stage1.pre"], before)
    assert torch.equal(own["last"], F.silu(before))


class Changing(nn.Module):
    """Changes its map in a call whose result nobody takes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, stride=2)
        self.act = nn.SiLU(inplace=True)
        self.fc = nn.Linear(4, CLASSES)

    def forward(self, shown: Tensor) -> Tensor:
        x = self.second(self.first(shown))
        self.act(x)
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def test_what_changes_a_map_unseen_is_found_out() -> None:
    with pytest.raises(TrialFailed, match=r"Changing: what follows stage1 .* logits comes out otherwise"):
        behind(Changing(), "stage1", "embedding", stated={"stage1": "first", "stage2": "second"})


class Skipping(nn.Module):
    """Its last layers see an early map too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.second = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, shown: Tensor) -> Tensor:
        stem = self.stem(shown)
        deep = self.second(self.first(stem))
        joined = torch.cat([deep.mean(dim=(2, 3)), stem.mean(dim=(2, 3))], dim=1)
        logits: Tensor = self.fc(joined)
        return logits


PATHS = {"stage1": "first", "stage2": "second"}


def test_a_shortcut_around_the_stage_is_refused_by_name() -> None:
    told = (
        r"Skipping: what follows stage1 cannot be a network of its own: what follows it also uses what "
        r"`mean\w*` gives, which is computed before it; choose another stage, or a network"
    )
    with pytest.raises(TrialFailed, match=told):
        behind(Skipping(), "stage1", "last", stated=PATHS)


def test_a_shortcut_from_the_images_is_refused_too() -> None:
    class Residual(Skipping):
        def forward(self, shown: Tensor) -> Tensor:
            deep = self.second(self.first(self.stem(shown))).mean(dim=(2, 3))
            logits_BC: Tensor = self.fc(torch.cat([deep, deep], dim=1)) + shown[:, :1, 0, 0]
            return logits_BC

    with pytest.raises(TrialFailed, match=r"Residual: what follows stage1 .*which is computed before it"):
        behind(Residual(), "stage1", "last", stated=PATHS)


def test_a_feature_before_the_stage_is_refused_by_name() -> None:
    with pytest.raises(
        TrialFailed, match=r"ResNet: what follows stage2 .*: stage1 does not come behind it; choose"
    ):
        behind(built(**RESNET), "stage2", "stage1")


class Deciding(Skipping):
    """What it computes hangs on what it sees."""

    def forward(self, shown: Tensor) -> Tensor:
        deep = self.second(self.first(self.stem(shown)))
        deep = deep if deep.mean() > 0 else -deep
        logits_BC: Tensor = self.fc(torch.cat([deep, deep], dim=1).mean(dim=(2, 3)))
        return logits_BC


def test_a_forward_pass_that_cannot_be_followed_is_refused() -> None:
    told = r"Deciding: its forward pass cannot be followed \(TraceError: .*choose a network by name, or one"
    with pytest.raises(TrialFailed, match=told):
        behind(Deciding(), "stage1", "last", stated=PATHS)


def test_networks_of_transformers_are_followed() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        num_labels=CLASSES,
    )
    network = with_logits(transformers.ResNetForImageClassification(config), n_classes=CLASSES, which=None)
    check_all_stages(network, side=64)


def test_an_unknown_stage_is_refused_with_those_that_there_are() -> None:
    told = r"ResNet has no feature 'stage4'; it has stem, stage1, .*or choose another"
    with pytest.raises(TrialFailed, match=told):
        behind(built(**RESNET), "stage4")
    with pytest.raises(TrialFailed, match=r"Mlp has no feature 'stage1'; it has embedding"):
        behind(built(name=ModelName.MLP), "stage1")
    with pytest.raises(TrialFailed, match=r"ResNet: a branch begins at one map .*'embedding' is none"):
        behind(built(**RESNET), "embedding")
    with pytest.raises(TrialFailed, match=r"ResNet: a branch begins at one map .*'stages' is none"):
        behind(built(**RESNET), "stages")


def test_the_given_network_stays_as_it_is_and_shares_no_weight() -> None:
    network = built(**RESNET)
    network.get_submodule("layer2").eval()
    network.get_parameter("fc.bias").requires_grad_(False)
    state = copy.deepcopy(network.state_dict())
    modes = [part.training for part in network.modules()]
    random = torch.get_rng_state()
    branch = behind(network, "stage1")
    assert torch.equal(torch.get_rng_state(), random)
    assert [part.training for part in network.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert not [part for part in network.modules() if part._forward_hooks or part._forward_pre_hooks]
    assert not {id(one) for one in branch.parameters()} & {id(one) for one in network.parameters()}
    assert not branch.get_parameter("parts.fc.bias").requires_grad
    own = {name.removeprefix("parts."): value for name, value in branch.state_dict().items()}
    assert all(torch.equal(value, state[name]) for name, value in own.items())
    assert {name.split(".")[0] for name in own} == {"layer2", "layer3", "fc"}


def test_the_gradient_flows_to_the_map_and_to_every_parameter() -> None:
    network = built(**RESNET)
    branch = behind(network, "stage1", "last")
    map_BCHW = torch.rand(3, 4, 32, 32, requires_grad=True)
    logits_BC, features = branch(map_BCHW)
    torch.autograd.backward(logits_BC.square().sum() + features["last"].sum())
    assert map_BCHW.grad is not None
    assert bool(map_BCHW.grad.abs().sum() > 0)
    assert all(parameter.grad is not None for parameter in branch.parameters())


def test_it_trains_and_its_batch_norm_follows() -> None:
    branch = behind(built(**RESNET), "stage2", "last")
    map_BCHW, labels_B = images(16, 16, 8), torch.arange(16) % CLASSES
    mean = branch.get_buffer("parts.layer3.0.bn1.running_mean")
    before = mean.clone()
    optimizer = torch.optim.SGD(branch.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(30):
        loss = F.cross_entropy(branch(map_BCHW)[0], labels_B)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert not torch.equal(mean, before)
    after = mean.clone()
    branch.eval()
    branch(map_BCHW)
    assert torch.equal(mean, after)


def test_copies_and_states_are_those_of_any_module() -> None:
    network = users()
    branch = behind(network, "stage2", "last", "embedding", "energy.stage3", stated=USERS).eval()
    map_BCHW = torch.rand(3, 8, 16, 16)
    twin = copy.deepcopy(branch)
    assert not {id(one) for one in twin.parameters()} & {id(one) for one in branch.parameters()}
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    assert not torch.equal(twin(map_BCHW)[0], branch(map_BCHW)[0])
    state = branch.state_dict()
    assert all(type(value) is Tensor for value in state.values())
    assert not [name for name in state if name.endswith("scale_C")]  # as in the network itself
    twin.load_state_dict(state)
    assert torch.equal(twin(map_BCHW)[0], branch(map_BCHW)[0])
    averaged = WeightAverage(branch, 0.5).model
    assert torch.equal(averaged.eval()(map_BCHW)[0], branch(map_BCHW)[0])
    features = branch(map_BCHW)[1]
    assert branch.shapes == {name: tuple(value.shape[1:]) for name, value in features.items()}
    torch.testing.assert_close(features["energy.stage3"], features["last"].square().mean(dim=1))


def test_parameters_come_in_the_same_order_each_time() -> None:
    made = [
        [name for name, _ in behind(users(), "stage1", "last", stated=USERS).named_parameters()] for _ in "ab"
    ]
    assert made[0] == made[1]


def test_it_computes_in_bf16_and_with_channels_last() -> None:
    network = built(**RESNET).eval()
    branch = behind(network, "stage1").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    map_BCHW = torch.rand(3, 4, 32, 32)
    plain_BC, _ = branch(map_BCHW)
    strided_BC, features = branch(map_BCHW.to(memory_format=torch.channels_last))
    torch.testing.assert_close(strided_BC, plain_BC, rtol=1e-5, atol=1e-5)
    assert features["last"].is_contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lower_BC, _ = branch(map_BCHW)
    assert lower_BC.dtype is torch.bfloat16
    torch.testing.assert_close(lower_BC.float(), plain_BC, rtol=0.05, atol=0.05)


def test_the_stage_itself_may_be_asked_for() -> None:
    network = built(**RESNET).eval()
    branch = behind(network, "stage3", "last", "stage3")
    map_BCHW = torch.rand(3, 16, 8, 8)
    features = branch(map_BCHW)[1]
    assert torch.equal(features["stage3"], map_BCHW)
    assert torch.equal(features["last"], map_BCHW)
    every = behind(network, "stage1", "stages")(torch.rand(3, 4, 32, 32))[1]
    assert list(every) == ["stage1", "stage2", "stage3"]
