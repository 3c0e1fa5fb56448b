"""Weights on disk and their identity: safetensors written whole, and checkpoints put into networks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import safetensors.torch
import torch
from torch import Tensor, nn

from trainables.errors import CheckpointError
from trainables.foreign_files import foreign_file, in_a_line
from trainables.local_files import replace_file
from trainables.models.foreign.onnx_network import onnx_networks
from trainables.models.foreign.state_dicts import read_tensors, without_prefixes
from trainables.models.foreign.stems import for_grey
from trainables.models.resized import NETWORK

_RESIZED_PREFIX: Final = f"{NETWORK}."
_COUNTER_SUFFIX: Final = "num_batches_tracked"
_NAMED: Final = 5


def count_parameters(model: nn.Module) -> int:
    """Learned numbers; buffers such as batch norm's statistics are not counted, shared weights once.

    An ONNX file does not tell the one from the other: of it all numbers of floating point are counted.
    """
    own = sum(parameter.numel() for parameter in model.parameters())
    return own + sum(network.graph.n_numbers for network in onnx_networks(model))


def save_weights(model: nn.Module, path: Path, metadata: Mapping[str, str]) -> None:
    """Writes parameters and buffers as safetensors, beside the path, then puts them there in one step.

    Weights that two names share are written under both. Missing folders are made.

    Raises:
        OSError: the folder cannot be written to.
    """
    # safetensors refuses tensors that share memory, hence the clone.
    tensors = {name: tensor.cpu().contiguous().clone() for name, tensor in _state(model).items()}
    content = safetensors.torch.save(tensors, metadata=dict(metadata))
    replace_file(path, content)


def load_weights(model: nn.Module, path: Path) -> None:
    """Puts the weights of a file into the model: every name and shape must match, or nothing changes.

    Reads .safetensors, and .pt or .pth that hold a state dict, bare or under "state_dict", "model" or "ema".
    Prefixes of names that wrappers add are taken off. Weights of a network fit the same network behind a
    layer that resizes its images. Values are converted to the model's types.

    Raises:
        CheckpointError: the file is missing, unreadable, holds other objects than tensors, or does not fit.
    """
    tensors = fitted_tensors(model, path)
    refuse_mismatch(model, tensors, path)
    with foreign_file(lambda why: CheckpointError(f"checkpoint {path} cannot be used: {why}")):
        model.load_state_dict(tensors)


def fitted_tensors(model: nn.Module, path: Path) -> dict[str, Tensor]:
    """The tensors of a file under the names that the model has for them, as far as prefixes tell.

    Those of a first convolution for colour are summed for a model of grey images.

    Raises:
        CheckpointError: the file is missing, unreadable, or holds other objects than tensors.
    """
    tensors, own = read_tensors(path), model.state_dict()
    if not _is_resized(model):
        return for_grey(without_prefixes(tensors, own), own)
    bare = {name.removeprefix(_RESIZED_PREFIX): tensor for name, tensor in tensors.items()}
    found = without_prefixes(bare, {name.removeprefix(_RESIZED_PREFIX) for name in own})
    return for_grey({_RESIZED_PREFIX + name: tensor for name, tensor in found.items()}, own)


def weights_digest(model: nn.Module) -> str:
    """Hex sha256 over parameters and buffers in order of their names: name, type, shape and bytes of each."""
    digest = hashlib.sha256()
    for name, tensor in sorted(_state(model).items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        # As bytes, since numpy has no bfloat16.
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _is_resized(model: nn.Module) -> bool:
    return all(name.startswith(_RESIZED_PREFIX) for name in model.state_dict())


def _state(model: nn.Module) -> dict[str, Tensor]:
    state = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"{type(model).__name__} keeps {name}, a {type(value).__name__}, in its state dict; only "
                "tensors can be kept on disk: make it a buffer"
            )
        state[name] = value.detach()
    return state


def refuse_mismatch(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Let only tensors pass that are the model's, name by name and shape by shape.

    Raises:
        CheckpointError: they are not; it says what differs, and where that is the head alone, what mends it.
    """
    own = model.state_dict()
    # Batch norm sets its counter to zero itself when a checkpoint from before torch 0.4.1 lacks it.
    missing = [name for name in own if name not in tensors and not name.endswith(_COUNTER_SUFFIX)]
    unexpected = [name for name in tensors if name not in own]
    mismatching = [
        f"{name} is {tuple(tensors[name].shape)}, the model's is {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    unusable = [
        f"{name} ({kind})"
        for name, tensor in tensors.items()
        if name in own and (kind := _why_unusable(tensor))
    ]
    if missing or unexpected or mismatching or unusable:
        findings = [
            _listed("missing", missing),
            _listed("unexpected", unexpected),
            _listed("of another shape", mismatching),
            _listed("of a kind that cannot be used", unusable),
        ]
        advice = (
            "Check the model's name, `width` and `arguments`, and the classes and channels of the data set"
        )
        if not (missing or unexpected):
            advice = _other_classes(own, tensors) or advice
        raise CheckpointError(
            f"checkpoint {path} does not fit {type(model).__name__}: {'; '.join(filter(None, findings))}. "
            f"{advice}"
        )


def _other_classes(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str | None:
    """What mends a checkpoint that differs in the number of classes alone; none for other differences."""
    names = [name for name in own if name in tensors and tensors[name].shape != own[name].shape]
    if any(own[name].dim() == 0 or own[name].shape[1:] != tensors[name].shape[1:] for name in names):
        return None
    rows = {(len(tensors[name]), len(own[name])) for name in names}
    if len(rows) != 1 or names != list(own)[-len(names) :]:  # a head comes last
        return None
    ((there, here),) = rows
    return (
        f"Its head ({', '.join(names)}) is of {there} classes, the data set has {here}. Where these are "
        f"among the {there}, name all {there} in the order of its outputs below the teacher: `classes: [...]`"
    )


def _why_unusable(tensor: Tensor) -> str:
    """The kind of a tensor that holds no plain real numbers; nothing where it does."""
    if tensor.is_meta:
        return "without its numbers"
    if tensor.layout is not torch.strided:
        return "sparse"
    return "complex" if tensor.is_complex() else ""


def _listed(what: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{len(names)} {what}: {in_a_line(', '.join(names[:_NAMED]))}{more}"
