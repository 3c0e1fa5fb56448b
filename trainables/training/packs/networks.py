"""The networks of all lanes as one: two ways to compute them, and the proof that a way is right."""

# L = lanes, B = samples in the batch, C = channels of an image, H, W = height and width, K = classes

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from trainables.models.foreign.copies import copied
from trainables.training.packs.grouped_layers import LAYERS, Source, can_be_grouped, channels_last
from trainables.training.packs.weights import LaneWeights

log = logging.getLogger(__name__)

_PROOF_LANES: Final = 3
_PROOF_IMAGES: Final = 6
_TOLERANCE: Final = 1e-8
"""Relative, of numbers in float64: what differs by more than rounding is computed in another way."""


class Form(StrEnum):
    """How the networks of a pack are computed as one."""

    GROUPED = "grouped"
    """Channels side by side: convolutions in groups, products of matrices in batches."""
    MAPPED = "mapped"
    """`torch.func.vmap` over one network's forward pass."""


class LaneNetworks(Protocol):
    """The networks of all lanes."""

    network: nn.Module
    """What computes them; its weights are nobody's."""

    def __call__(self, weights: LaneWeights, images: Tensor, *, values_LP: Tensor, training: bool) -> Tensor:
        """Logits LxBxK of images BxLxCxHxW, or BxCxHxW where all lanes see the same.

        In training mode statistics in the buffers of `weights` are counted on.
        """


class GroupedNetworks:
    """`Form.GROUPED`: one network whose layers hold those of all lanes."""

    def __init__(self, model: nn.Module) -> None:
        """The model stays as it is.

        Raises:
            ValueError: a layer with weights has no grouped form.
        """
        self._source = Source()
        self.network = _grouped(copied(model), "", self._source)

    def __call__(self, weights: LaneWeights, images: Tensor, *, values_LP: Tensor, training: bool) -> Tensor:
        """See `LaneNetworks`."""
        lanes = self._source.lanes = len(values_LP)
        self._source.rows = {**weights.parameters(values_LP), **weights.buffers}
        self.network.train(training)
        x = images.repeat(1, lanes, 1, 1) if images.ndim == 4 else images.flatten(1, 2)
        logits: Tensor = self.network(channels_last(x))
        return logits.view(len(logits), lanes, -1).transpose(0, 1)


class MappedNetworks:
    """`Form.MAPPED`: any network that `torch.func` can map over."""

    def __init__(self, model: nn.Module) -> None:
        """The model stays as it is."""
        self.network = copied(model)

    def __call__(self, weights: LaneWeights, images: Tensor, *, values_LP: Tensor, training: bool) -> Tensor:
        """See `LaneNetworks`."""
        self.network.train(training)

        def one(parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], own_BCHW: Tensor) -> Any:
            return functional_call(self.network, (dict(parameters), dict(buffers)), (own_BCHW,))

        in_dims = (0, 0, None if images.ndim == 4 else 1)
        mapped = vmap(one, in_dims=in_dims, randomness="error")
        logits_LBK: Tensor = mapped(weights.parameters(values_LP), weights.buffers, images)
        return logits_LBK


FORMS: Final[Mapping[Form, Callable[[nn.Module], LaneNetworks]]] = MappingProxyType(
    {Form.GROUPED: GroupedNetworks, Form.MAPPED: MappedNetworks}
)


def forms_of(model: nn.Module, input_shape: tuple[int, int, int]) -> list[Form]:
    """The forms that compute what networks of this architecture compute, each alone.

    It is tried on random images in float64: logits in both modes, gradients and statistics. A network that
    changes anything else of itself in a pass has none, since lanes would share that. The model, and the
    random state, stay as they are.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [form for form in Form if _is_right(form, model, input_shape)]


def _grouped(module: nn.Module, name: str, source: Source) -> nn.Module:
    if can_be_grouped(module):
        return LAYERS[type(module)](module, name, source)
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    if own:
        raise ValueError(f"{type(module).__name__} {name!r} has no grouped form")
    for part, child in module.named_children():
        setattr(module, part, _grouped(child, f"{name}.{part}" if name else part, source))
    return module


def _is_right(form: Form, model: nn.Module, input_shape: tuple[int, int, int]) -> bool:
    try:
        return _keeps_nothing_else(model, input_shape) and _agrees(form, model, input_shape)
    except Exception as error:  # noqa: BLE001  a user's network may refuse to be computed so in any way
        log.info("%s cannot be trained in form %s: %s", type(model).__name__, form, error)
        return False


def _agrees(form: Form, model: nn.Module, input_shape: tuple[int, int, int]) -> bool:
    device = next(model.parameters()).device
    alone = [_perturbed(model) for _ in range(_PROOF_LANES)]
    weights = LaneWeights(model)
    for each in alone:
        weights.append(each)
    images = torch.rand(_PROOF_IMAGES, _PROOF_LANES, *input_shape, dtype=torch.float64, device=device)
    networks = FORMS[form](alone[0])
    values_LP = weights.values_LP.requires_grad_()
    logits_LBK = networks(weights, images, values_LP=values_LP, training=True)
    factors_LBK = torch.rand_like(logits_LBK)
    (gradient_LP,) = torch.autograd.grad((logits_LBK * factors_LBK).sum(), values_LP)
    shared_LBK = networks(weights, images[:, 0], values_LP=values_LP.detach(), training=False)
    for lane, each in enumerate(alone):
        own_BK = each.train()(images[:, lane])
        (own_BK * factors_LBK[lane]).sum().backward()
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in each.parameters()]
        pairs = [(logits_LBK[lane], own_BK), (shared_LBK[lane], each.eval()(images[:, 0]))]
        pairs += [(weights.buffers[name][lane], own) for name, own in each.named_buffers()]
        pairs += list(zip(weights.by_parameter(gradient_LP[lane]), gradients, strict=True))
        if not all(_is_close(one, other) for one, other in pairs):
            return False
    return True


def _keeps_nothing_else(model: nn.Module, input_shape: tuple[int, int, int]) -> bool:
    """Whether a pass leaves all plain attributes of all parts as they were."""
    tried, device = _perturbed(model), next(model.parameters()).device
    before = _plain_attributes(tried)
    images = torch.rand(_PROOF_IMAGES, *input_shape, dtype=torch.float64, device=device)
    for training in (True, False):
        tried.train(training)(images)
    return _plain_attributes(tried) == before


def _plain_attributes(model: nn.Module) -> list[dict[str, Any]]:
    plain = (bool, int, float, str, type(None))
    return [
        {name: value for name, value in vars(part).items() if name != "training" and isinstance(value, plain)}
        for part in model.modules()
    ]


def _perturbed(model: nn.Module) -> nn.Module:
    """A network of the same shape with other weights, in float64."""
    other: nn.Module = copied(model).double()
    with torch.no_grad():
        for value in other.parameters():
            value.add_(0.1 * torch.randn_like(value))
    return other


def _is_close(one: Tensor, other: Tensor) -> bool:
    one, other = one.detach().double(), other.detach().double()
    return bool((one - other).norm() <= _TOLERANCE * (1 + other.norm()))
