"""Weights on disk and their identity: safetensors written whole, foreign checkpoints read without objects."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError  # only the error's name: torch.load raises it
from typing import Final

import safetensors.torch
import torch
from torch import Tensor, nn

from trainables.errors import CheckpointError
from trainables.foreign_files import foreign_file, in_a_line
from trainables.local_files import replace_file
from trainables.models.resized import NETWORK

_WRAPPERS: Final = ("state_dict", "model")
_PARALLEL_PREFIX: Final = "module."
_RESIZED_PREFIX: Final = f"{NETWORK}."
_COUNTER_SUFFIX: Final = "num_batches_tracked"
_NAMED: Final = 5


def count_parameters(model: nn.Module) -> int:
    """Learned numbers; buffers such as batch norm's statistics are not counted, shared weights once."""
    return sum(parameter.numel() for parameter in model.parameters())


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

    Reads .safetensors, and .pt or .pth that hold a state dict, bare or under "state_dict" or "model". A
    prefix "module." on every name, which DataParallel adds, is taken off. Weights of a network fit the same
    network behind a layer that resizes its images. Values are converted to the model's types.

    Raises:
        CheckpointError: the file is missing, unreadable, holds other objects than tensors, or does not fit.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint {path} (seen from {Path.cwd()}); correct the path")
    match path.suffix:
        case ".safetensors":
            tensors = _read_safetensors(path)
        case ".pt" | ".pth":
            tensors = _read_torch(path)
        case _:
            raise CheckpointError(
                f"checkpoint {path} has the suffix {path.suffix!r}; readable are .safetensors, .pt and .pth"
            )
    if _is_resized(model) and not any(name.startswith(_RESIZED_PREFIX) for name in tensors):
        tensors = {_RESIZED_PREFIX + name: tensor for name, tensor in tensors.items()}
    _refuse_mismatch(model, tensors, path)
    with foreign_file(lambda why: CheckpointError(f"checkpoint {path} cannot be used: {why}")):
        model.load_state_dict(tensors)


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


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with foreign_file(
        lambda why: CheckpointError(
            f"{path} is not a readable safetensors file ({why}); copy or write it again"
        )
    ):
        return safetensors.torch.load_file(path)


def _read_torch(path: Path) -> dict[str, Tensor]:
    with foreign_file(
        lambda why: CheckpointError(
            f"{path} is not a readable torch checkpoint ({why}); copy or save it again"
        )
    ):
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except UnpicklingError as error:
            raise CheckpointError(
                f"torch.load with weights_only refused {path}: it holds pickled objects, not tensors alone, "
                "or is damaged; where you trust the file, load it yourself, save its state dict as .pt, and "
                "use that"
            ) from error
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not (isinstance(content, Mapping) and content and all(_is_entry(*item) for item in content.items())):
        raise CheckpointError(
            f"{path} holds {_described(content)}; expected a state dict (name: tensor), bare or under one of "
            f"{', '.join(_WRAPPERS)}"
        )
    if all(name.startswith(_PARALLEL_PREFIX) for name in content):
        return {name.removeprefix(_PARALLEL_PREFIX): tensor for name, tensor in content.items()}
    return dict(content)


def _is_entry(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)


def _described(content: object) -> str:
    if isinstance(content, Mapping):
        return f"a mapping with the keys {', '.join(map(repr, list(content)[:_NAMED])) or '(none)'}"
    return f"a {type(content).__name__}"


def _refuse_mismatch(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
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
        raise CheckpointError(
            f"checkpoint {path} does not fit {type(model).__name__}: {'; '.join(filter(None, findings))}. "
            "Check the model's name, `width` and `arguments`, and the classes and channels of the data set"
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
