"""The weights that a network's library publishes, from the machine's cache or fetched, in a file of the run.

A file, so that they are known by its content and reach every node as any other checkpoint does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from trainables.checkpoint_header import (
    CONFIG,
    NORMALISATION,
    PREPROCESSING,
    WEIGHTS,
)
from trainables.config import ModelConfig, ModelName, digest_of
from trainables.errors import CheckpointError, ConfigError
from trainables.foreign_files import foreign_file
from trainables.models.foreign.extras import extra, nearest
from trainables.models.foreign.from_timm import require_known
from trainables.models.foreign.hub import hub_file, why_unreachable
from trainables.models.foreign.transformers_weights import copied, transformers_weights
from trainables.models.weights import save_weights

_PICKLED: Final = "pytorch_model.bin"


def published_weights(model: ModelConfig, tag: str | None, folder: Path) -> Path:
    """A file below `folder` with the weights of the library's network.

    They are of the library's classes. A file that is there already is not made again.

    Raises:
        ConfigError: the library does not have such weights, or they cannot be fetched.
        CheckpointError: they cannot be read.
    """
    match model.name:
        case ModelName.TIMM:
            return _of_timm(model, tag, folder)
        case ModelName.TRANSFORMERS:
            return _of_transformers(model, tag, folder)
        case _:
            return _of_torchvision(model, tag, folder)


def _of_torchvision(model: ModelConfig, tag: str | None, folder: Path) -> Path:
    import torchvision  # late: it takes as long to import as torch

    variant = str(model.variant)
    known = torchvision.models.list_models(module=torchvision.models)
    if variant not in known:
        raise ConfigError(f"torchvision has no classifier {variant!r}; nearest: {nearest(variant, known)}")
    choices = torchvision.models.get_model_weights(variant)
    names = [each.name for each in choices]
    if tag is not None and tag not in choices.__members__:
        raise ConfigError(f"torchvision has no weights {tag!r} of {variant}; it has {', '.join(names)}")
    url = str(choices[tag or "DEFAULT"].url)
    name = url.rpartition("/")[-1]
    if (folder / name).is_file():  # brought before: the cache may be gone since
        return folder / name
    cached = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not cached.is_file():
        _download(url, cached, f"torchvision's weights of {variant} ({name})")
    return copied(cached, folder / name)


def _of_timm(model: ModelConfig, tag: str | None, folder: Path) -> Path:
    timm, named = extra("timm"), str(model.variant)
    variant = named if tag is None else f"{named.partition('.')[0]}.{tag}"
    require_known(variant)
    target = folder / f"timm-{variant}-{digest_of(model.arguments)[:8]}.safetensors"
    if target.is_file():
        return target
    facts = timm.get_pretrained_cfg(variant)
    if facts is None or not facts.has_weights:
        with_weights = timm.list_models(pretrained=True)
        raise ConfigError(
            f"timm publishes no weights of {variant}; nearest that have some: "
            f"{nearest(variant, with_weights)}"
        )
    source = _source_of_timm(facts, variant)
    with foreign_file(
        lambda why: CheckpointError(f"timm cannot make {variant} of its published weights {source}: {why}")
    ):
        network: nn.Module = timm.create_model(
            variant, pretrained=True, pretrained_cfg_overlay={"file": str(source)}, **model.arguments
        )
    # One key: safetensors keeps several in any order, and the file is known by its content.
    stated = json.dumps({"mean": list(facts.mean), "std": list(facts.std)})
    save_weights(network, target, {NORMALISATION: stated})
    return target


def _source_of_timm(facts: Any, variant: str) -> Path:
    """The file that timm publishes, on this machine."""
    if facts.hf_hub_id:
        names = [facts.hf_hub_filename] if facts.hf_hub_filename else [WEIGHTS, _PICKLED]
        found = next(filter(None, (hub_file(facts.hf_hub_id, name) for name in names)), None)
        if found is None:
            raise ConfigError(
                f"{facts.hf_hub_id} on the hub has no {' or '.join(names)}, as timm says it does"
            )
        return found
    name = str(facts.url).rpartition("/")[-1]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not cached.is_file():
        _download(str(facts.url), cached, f"timm's weights of {variant} ({name})")
    return cached


def _of_transformers(model: ModelConfig, tag: str | None, folder: Path) -> Path:
    variant = str(model.variant)
    if tag is not None:
        raise ConfigError(f"transformers has one set of weights of {variant}, and none {tag!r}; leave it out")
    if model.folder is not None:
        return transformers_weights(model.folder, folder)
    for name in (CONFIG, PREPROCESSING):
        hub_file(variant, name)
    found = hub_file(variant, WEIGHTS)
    if found is None:
        raise ConfigError(f"{variant} on the hub has no {WEIGHTS}; pickles are not read")
    return transformers_weights(found.parent, folder)


def _download(url: str, target: Path, what: str) -> None:
    """Fetch a file into the library's own cache; its hash is in its name.

    Raises:
        ConfigError: nobody answers within some seconds, or it does not come, or not whole.
    """
    lacking = f"{what} are not in the cache of this machine ({target.parent})"
    advice = "bring the file there, or name it as `checkpoint`"
    if unreachable := why_unreachable(url):
        raise ConfigError(f"{lacking}, and {url} cannot be reached ({unreachable}); {advice}")
    with foreign_file(lambda why: ConfigError(f"{lacking}, and {url} does not give them: {why}; {advice}")):
        target.parent.mkdir(parents=True, exist_ok=True)
        found = torch.hub.HASH_REGEX.search(target.name)
        torch.hub.download_url_to_file(url, str(target), found.group(1) if found else None, progress=False)
