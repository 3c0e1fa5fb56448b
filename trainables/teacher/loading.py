"""The teacher's network, built and filled with its weights, and what it is known by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainables.checkpoint_header import known_by
from trainables.config import (
    Combine,
    KeptEnsemble,
    KeptNetwork,
    KeptTeacher,
    ModelConfig,
    OnlineSpec,
    digest_of,
)
from trainables.data import TrainingData
from trainables.errors import CheckpointError
from trainables.models import build_model
from trainables.models.features import Extended
from trainables.models.foreign.aligned import Aligned, aligned
from trainables.models.foreign.ensemble import Ensemble
from trainables.models.foreign.onnx_graph import read_onnx
from trainables.models.foreign.onnx_network import OnnxNetwork
from trainables.models.renormalised import Renormalised, renormalised
from trainables.models.weights import load_weights, weights_digest
from trainables.teacher.autocast import AutocastTeacher
from trainables.teacher.cache_request import CacheRequest
from trainables.teacher.prepared import with_prepared


def teacher_of(request: CacheRequest, data: TrainingData) -> nn.Module:
    """The teacher that a request's cache is made of, on the CPU.

    Raises:
        CacheError: its logits were imported.
        CheckpointError: the weights cannot be read or do not fit.
    """
    return _in_precision(prepared_teacher(request.network, data), autocast=request.cache.autocast)


def online_teacher(spec: OnlineSpec, data: TrainingData) -> nn.Module:
    """The teacher that runs beside the students, on the CPU.

    Raises:
        CheckpointError: the weights cannot be read or do not fit.
    """
    return _in_precision(prepared_teacher(spec.network, data), autocast=spec.autocast)


def load_teacher(kept: KeptTeacher, data: TrainingData) -> nn.Module:
    """The teacher with its weights, on the CPU, for images and classes of this data.

    Whatever its own normalisation and order of classes are, it takes images that are normalised as the
    data's and gives logits of the data's classes: whoever asks it, cache, proof or a step beside a student,
    shows it what the student sees, and hears of the classes that the student learns.

    Raises:
        CheckpointError: the weights cannot be read or do not fit.
        ConfigError: the normalisation is of other channels than the images.
    """
    if isinstance(kept, KeptEnsemble):
        return Ensemble([load_teacher(member, data) for member in kept.members], kept.shares, kept.combine)
    n_outputs = kept.classes.n_outputs if kept.classes else len(data.classes)
    if kept.model is None:
        model: nn.Module = load_onnx(kept.weights, data, n_outputs=n_outputs, output=kept.output)
    else:
        model = load_network(kept.model, kept.weights, data, n_outputs=n_outputs)
    model = renormalised(model, kept.normalisation, data_mean=data.mean, data_std=data.std)
    return aligned(model, kept.classes)


def prepared_teacher(kept: KeptTeacher, data: TrainingData) -> nn.Module:
    """The same with what it was prepared with beside it.

    Raises:
        CheckpointError: weights cannot be read or do not fit.
        CacheError: the teacher has not the features that it was prepared on.
    """
    teacher = load_teacher(kept, data)
    if not isinstance(kept, KeptNetwork):
        return teacher
    return with_prepared(
        teacher,
        kept.prepared,
        n_classes=len(data.classes),
        input_shape=data.train.image_shape,
        stated=kept.model.features if kept.model else {},
    )


def load_network(config: ModelConfig, weights: str, data: TrainingData, *, n_outputs: int) -> nn.Module:
    """A network with its weights, on the CPU, as it is: for images and classes of its own.

    Raises:
        CheckpointError: the weights cannot be read or do not fit.
    """
    # The weights that a network begins with are drawn only to be replaced: the caller's generator stays.
    with torch.random.fork_rng(devices=[]):
        model = build_model(config, n_classes=n_outputs, in_channels=int(data.train.images.shape[1]))
    load_weights(model, Path(weights))
    return model


def load_onnx(file: str, data: TrainingData, *, n_outputs: int, output: str | None) -> OnnxNetwork:
    """A network from an ONNX file, as it is: for images and classes of its own.

    Raises:
        CheckpointError: it cannot be read or run, is no classifier of such images, or has other classes.
    """
    network = OnnxNetwork(read_onnx(Path(file), output), data.train.image_shape)
    if network.n_outputs != n_outputs:
        raise CheckpointError(
            f"{file} has {network.n_outputs} outputs, and {n_outputs} classes are known; name all its "
            "outputs in their order below the teacher: `classes: [...]`, among which the data's are found"
        )
    return network


def kept_fingerprint(kept: KeptTeacher, network: nn.Module) -> str:
    """`teacher_fingerprint` of what was kept, and loaded as this network."""
    if isinstance(kept, KeptEnsemble) and isinstance(network, Ensemble):
        pairs = zip(kept.members, network.members, strict=True)
        members = [kept_fingerprint(member, loaded) for member, loaded in pairs]
        return ensemble_fingerprint(members, kept.shares, kept.combine)
    return teacher_fingerprint(kept.model if isinstance(kept, KeptNetwork) else None, network)


def ensemble_fingerprint(members: Sequence[str], shares: Sequence[float], combine: Combine) -> str:
    """Hex sha256 of several teachers by their own, with how they are averaged; their order does not count."""
    return digest_of(["ensemble", combine.value, sorted(zip(members, shares, strict=True))])


def teacher_fingerprint(config: ModelConfig | None, network: nn.Module) -> str:
    """Hex sha256 of a teacher's architecture and weights: what caches and finished stages know it by.

    A normalisation of its own counts too, and so does another order of classes. `network` is the teacher in
    fp32; under bf16 autocast it is another teacher, see `autocast_digest`.
    """
    if isinstance(network, Extended):  # what stands beside it does not change its answers
        return teacher_fingerprint(config, network.base)
    if isinstance(network, Aligned):
        return digest_of([teacher_fingerprint(config, network.network), network.classes.plain()])
    if isinstance(network, Renormalised):
        own = network.normalisation.plain()
        return digest_of([*_known_by(config, network.network), own])
    return digest_of(_known_by(config, network))


def _known_by(config: ModelConfig | None, network: nn.Module) -> list[Any]:
    """Architecture and weights, as fingerprints hold them."""
    if isinstance(network, OnnxNetwork):
        return ["onnx", network.graph.digest]
    return [config and known_by(config.unnamed), weights_digest(network)]


def _in_precision(teacher: nn.Module, *, autocast: bool) -> nn.Module:
    return AutocastTeacher(teacher) if autocast else teacher
