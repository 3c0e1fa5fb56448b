"""How the images of a loaded teacher were normalised: as the experiment, the checkpoint or its library says.

A network that is shown other numbers than it was trained on is only worse, without a word; so what nobody
says is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from trainables.checkpoint_header import stated_classes, stated_normalisation
from trainables.config import ModelName, Normalisation, TeacherSource
from trainables.config.teacher import TO_WRITE
from trainables.data import TrainingData
from trainables.errors import CheckpointError, ConfigError
from trainables.models.renormalised import renormalised


def shown_as_trained(network: nn.Module, source: TeacherSource, data: TrainingData) -> nn.Module:
    """The teacher for images that are normalised as the data's, whatever its own normalisation is.

    Raises:
        ConfigError: nobody says what a loaded teacher's normalisation is, or it is of other channels.
        CheckpointError: its classes are others than the data's, or in another order.
    """
    _refuse_other_classes(source, data)
    own = _own_normalisation(network, source)
    return renormalised(network, own, data_mean=data.mean, data_std=data.std)


def _own_normalisation(network: nn.Module, source: TeacherSource) -> Normalisation | None:
    """None where it is the data's."""
    if source.normalisation == "data" or not source.is_loaded:
        return None
    if isinstance(source.normalisation, Normalisation):
        return source.normalisation
    of_library = _of_module(network)
    if source.checkpoint is None:
        if of_library is not None:
            return of_library
        raise ConfigError(
            f"teacher factory {source.model.factory!r} brings its weights (`pretrained: true`), and its "
            f"network does not say how images were normalised when they were trained; {TO_WRITE}"
        )
    stated = stated_normalisation(Path(source.checkpoint))
    if stated is None and source.model.name is ModelName.TORCHVISION:
        stated = _of_torchvision(str(source.model.variant), Path(source.checkpoint).name)
    if stated is not None:
        return stated
    # A checkpoint may have been trained with other numbers than its library's own weights: only proposed.
    proposal = "" if of_library is None else f"; its library's own weights have {_in_yaml(of_library)}"
    raise ConfigError(
        f"teacher.checkpoint {source.checkpoint} does not say how images were normalised when it was "
        f"trained; {TO_WRITE}{proposal}"
    )


def _of_module(network: nn.Module) -> Normalisation | None:
    """What a network of timm carries with it."""
    for name in ("pretrained_cfg", "default_cfg"):
        found = getattr(network, name, None)
        get = found.get if isinstance(found, Mapping) else lambda key, found=found: getattr(found, key, None)
        moments = _moments(get("mean"), get("std"))
        if moments is not None:
            return moments
    return None


def _of_torchvision(variant: str, file: str) -> Normalisation | None:
    """What torchvision says of its own weights, whose files have the sha256 in their names."""
    import torchvision  # late: it takes as long to import as torch

    for weights in torchvision.models.get_model_weights(variant):
        if weights.url.rpartition("/")[-1] == file:
            transforms = weights.transforms()
            return _moments(getattr(transforms, "mean", None), getattr(transforms, "std", None))
    return None


def _moments(mean: Any, std: Any) -> Normalisation | None:
    if not (isinstance(mean, Iterable) and isinstance(std, Iterable)):
        return None
    return Normalisation(mean=tuple(map(float, mean)), std=tuple(map(float, std)))


def _in_yaml(own: Normalisation) -> str:
    return f"`normalisation: {{mean: {list(own.mean)}, std: {list(own.std)}}}`"


def _refuse_other_classes(source: TeacherSource, data: TrainingData) -> None:
    known = None if source.checkpoint is None else stated_classes(Path(source.checkpoint))
    if known is None or known == data.classes:
        return
    for place, (there, here) in enumerate(zip(known, data.classes, strict=False)):
        if there != here:
            differs = f"class {place} is {there!r} there and {here!r} here"
            break
    else:
        differs = "the names that both have are the same"
    raise CheckpointError(
        f"teacher.checkpoint {source.checkpoint} was trained for {len(known)} classes, the data set has "
        f"{len(data.classes)}: {differs}; give the data set's classes the names and order of the checkpoint"
    )
