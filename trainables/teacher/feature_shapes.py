"""How large a teacher's features are, known from its network before any is computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from trainables.cache.format.planning import Plan, all_shards
from trainables.cache.format.records import Origin, Shard
from trainables.config import BankConfig, KeptNetwork, ModelConfig
from trainables.config.cache import CLASSIFIER, LOGITS
from trainables.config.objective_base import Preparation
from trainables.config.representation.preparation import makes
from trainables.errors import CacheError
from trainables.models import build_model
from trainables.models.foreign.aligned import aligned
from trainables.teacher.cache_request import CacheRequest
from trainables.teacher.features import TeacherFeatures, teacher_classifier
from trainables.teacher.prepared import extended


def missing_shapes(request: CacheRequest, plan: Plan) -> Mapping[str, tuple[int, ...]]:
    """The shape of a row of each feature that a plan still needs.

    Raises:
        CacheError: as for `feature_shapes`.
    """
    return feature_shapes(request, {shard.part for shard in plan.missing} - {LOGITS})


def maps_not_kept(
    request: CacheRequest, origin: Origin, banks: Mapping[str, BankConfig]
) -> tuple[Origin, list[Shard]]:
    """What objectives ask for and the cache does not keep: what its folder would be for, and the shards."""
    wished = {
        bank: tuple(name for name in names if not request.cache.is_kept(name))
        for bank, names in request.asked.items()
        if bank in banks
    }
    wider = origin.with_overrides(features=wished)
    return wider, [shard for shard in all_shards(wider, banks) if shard.part != LOGITS]


def feature_shapes(request: CacheRequest, names: Iterable[str]) -> Mapping[str, tuple[int, ...]]:
    """The shape of a row of each of these features of a request's teacher; of none where it has no network.

    Raises:
        CacheError: the teacher is no network of PyTorch, or has no such feature.
    """
    names = sorted(names)
    config = _network(request, names) if names else None
    if config is None:
        return {}
    n_classes, input_shape = len(request.facts.classes), request.facts.input_shape
    model = _model(request, config, names)
    shapes: dict[str, tuple[int, ...]] = {}
    if CLASSIFIER in names:
        shapes[CLASSIFIER] = (teacher_classifier(model, n_classes).weight_CD.shape[1] + 1,)
    tapped = [name for name in names if name != CLASSIFIER]
    if tapped:
        features = TeacherFeatures(
            model,
            tapped,
            n_classes=n_classes,
            input_shape=input_shape,
            device=torch.device("cpu"),
            stated=config.features,
        )
        shapes |= features.shapes
    return shapes


def _model(request: CacheRequest, config: ModelConfig, names: Sequence[str]) -> nn.Module:
    """The network with fresh weights, and with those parts beside it that make features of these names.

    Its features are as large as with the weights that it has, or will have.
    """
    classes = request.teacher.classes if isinstance(request.teacher, KeptNetwork) else None
    n_classes, input_shape = len(request.facts.classes), request.facts.input_shape
    n_outputs = classes.n_outputs if classes else n_classes
    with torch.random.fork_rng(devices=[]):
        built = build_model(config, n_classes=n_outputs, in_channels=input_shape[0])
        model: nn.Module = aligned(built.eval(), classes)
        kinds = [kind for kind in Preparation if any(makes(kind, name) for name in names)]
        if kinds:
            model = extended(
                model, kinds, n_classes=n_classes, input_shape=input_shape, stated=config.features
            )
    return model


def _network(request: CacheRequest, names: Sequence[str]) -> ModelConfig | None:
    """The one network of PyTorch that features are read off; none where only its answers are known."""
    if request.teacher is None:
        return request.unmade
    told = ", ".join(names)
    if not isinstance(request.teacher, KeptNetwork):
        raise CacheError(f"several teachers have no features in common that could be kept ({told})")
    if request.teacher.model is None:
        raise CacheError(
            f"the teacher {request.teacher.weights} has no features that could be kept ({told}), since its "
            "network is an ONNX file, which gives its logits alone"
        )
    return request.teacher.model
