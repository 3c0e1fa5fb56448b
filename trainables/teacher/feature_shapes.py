"""How large a teacher's features are, known from its network before any is computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from trainables.cache.format.planning import Plan
from trainables.config import KeptNetwork, ModelConfig
from trainables.config.cache import CLASSIFIER, LOGITS
from trainables.config.objective_base import Preparation
from trainables.config.representation.preparation import makes
from trainables.errors import CacheError
from trainables.models import build_model
from trainables.models.embedding import embedding_width_of
from trainables.models.foreign.aligned import aligned, n_outputs_of
from trainables.teacher.cache_request import CacheRequest
from trainables.teacher.features import TeacherFeatures
from trainables.teacher.prepared import extended


def missing_shapes(request: CacheRequest, plan: Plan) -> Mapping[str, tuple[int, ...]]:
    """The shape of a row of each feature that a plan still needs.

    Raises:
        CacheError: as for `feature_shapes`.
    """
    return feature_shapes(request, {shard.part for shard in plan.missing} - {LOGITS})


def feature_shapes(request: CacheRequest, names: Iterable[str]) -> Mapping[str, tuple[int, ...]]:
    """The shape of a row of each of these features of a request's teacher; of none where it has no network.

    Raises:
        CacheError: the teacher is no network of PyTorch, or has no such feature.
    """
    names = sorted(names)
    config = _network(request, names) if names else None
    if config is None:
        return {}
    classes = request.teacher.classes if isinstance(request.teacher, KeptNetwork) else None
    n_classes = len(request.facts.classes)
    input_shape = request.facts.input_shape
    with torch.random.fork_rng(devices=[]):
        model: nn.Module = build_model(
            config, n_classes=classes.n_outputs if classes else n_classes, in_channels=input_shape[0]
        )
        model = aligned(model.eval(), classes)
        kinds = [kind for kind in Preparation if any(makes(kind, name) for name in names)]
        if kinds:
            model = extended(
                model, kinds, n_classes=n_classes, input_shape=input_shape, stated=config.features
            )
    shapes: dict[str, tuple[int, ...]] = {}
    if CLASSIFIER in names:
        shapes[CLASSIFIER] = (embedding_width_of(model, n_outputs_of(model, n_classes)) + 1,)
    tapped = [name for name in names if name != CLASSIFIER]
    kinds = [kind for kind in Preparation if any(makes(kind, name) for name in tapped)]
    if kinds:  # as large with fresh weights as with those that it will have
        model = extended(
            model,
            kinds,
            n_classes=len(request.facts.classes),
            input_shape=request.facts.input_shape,
            stated=config.features,
        )
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
