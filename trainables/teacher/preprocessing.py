"""How the images of a loaded teacher were normalised: as the experiment, the checkpoint or its library says.

A network that is shown other numbers than it was trained on is only worse, without a word; so what nobody
says is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from torch import nn

from trainables.checkpoint_header import stated_normalisation
from trainables.config import ModelName, Normalisation, TeacherSource
from trainables.config.teacher import TO_WRITE
from trainables.data import TrainingData
from trainables.errors import ConfigError
from trainables.models.foreign.aligned import aligned
from trainables.models.renormalised import renormalised
from trainables.teacher.class_order import class_rows, in_other_words, known_classes, names_its_classes

COLOURS: Final = 3


def shown_as_trained(network: nn.Module, source: TeacherSource, data: TrainingData) -> nn.Module:
    """The teacher for the data's images and classes, whatever its own normalisation and order are.

    Raises:
        ConfigError: nobody says what a loaded teacher's normalisation is, or it is of other channels.
        CheckpointError: it lacks classes of the data's.
    """
    known = known_classes(source, network)
    is_of_library = source.model is not None and source.model.is_of_library
    if is_of_library and not names_its_classes(source) and in_other_words(known, data.classes):
        known = None  # as `tench, Tinca tinca` of n01440764: their order is the libraries' own
    rows = class_rows(known, data.classes, whose=name_of(source))
    own = _own_normalisation(network, source)
    if own is not None and len(own.mean) == COLOURS and len(data.mean) == 1 and is_of_library:
        own = _of_grey(own)  # its first convolution takes grey images then, with the weights of all colours
    return aligned(renormalised(network, own, data_mean=data.mean, data_std=data.std), rows)


def n_outputs(source: TeacherSource, data: TrainingData) -> int:
    """How many outputs a teacher's network is built with."""
    return len(known_classes(source) or data.classes)


def name_of(source: TeacherSource) -> str:
    """What errors call a teacher."""
    if source.checkpoint is not None:
        return f"teacher.checkpoint {source.checkpoint}"
    model = source.model
    return "teacher" if model is None else f"teacher {model.factory or model.variant or model.name}"


def _of_grey(own: Normalisation) -> Normalisation:
    """What a network for colour was shown, on average, where all three channels are the same."""
    return Normalisation(mean=(fmean(own.mean),), std=(fmean(own.std),))


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
        factory = source.model.factory if source.model else None
        raise ConfigError(
            f"teacher factory {factory!r} brings its weights (`pretrained: true`), and its "
            f"network does not say how images were normalised when they were trained; {TO_WRITE}"
        )
    stated = stated_normalisation(Path(source.checkpoint))
    model = source.model
    if stated is None and model is not None and model.name is ModelName.TORCHVISION:
        stated = _of_torchvision(str(model.variant), Path(source.checkpoint).name)
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
