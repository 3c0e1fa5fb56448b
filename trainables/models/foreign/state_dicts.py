"""State dicts from files: safetensors, and what torch.save wrote, read without unpickling objects."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError  # only the error's name: torch.load raises it
from typing import Final

import safetensors.torch
import torch
from torch import Tensor

from trainables.errors import CheckpointError
from trainables.foreign_files import foreign_file

_WRAPPERS: Final = ("state_dict", "model", "ema")
"""Keys below which a state dict may lie, in this order where a file has several."""
_PREFIXES: Final = ("module.", "_orig_mod.", "model.", "backbone.")
"""What DataParallel, torch.compile and training frameworks put before the names of weights."""
_DEPTH: Final = 4
_COUNTERS: Final = frozenset({"n_averaged"})
"""What a running mean of weights keeps beside them."""
_NAMED: Final = 5


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU: a state dict, bare or below `state_dict`, `model` or `ema`.

    Raises:
        CheckpointError: the file is missing, unreadable, or holds other objects than tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint {path} (seen from {Path.cwd()}); correct the path")
    match path.suffix:
        case ".safetensors":
            return _read_safetensors(path)
        case ".pt" | ".pth":
            return _read_torch(path)
        case _:
            raise CheckpointError(
                f"checkpoint {path} has the suffix {path.suffix!r}; readable are .safetensors, .pt and .pth"
            )


def without_prefixes(tensors: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """The tensors without prefixes that only a wrapper gave them: as many names as possible are of `own`.

    Names that have no such prefix, as those of a head beside a backbone, stay as they are.
    """
    kept = {name: tensor for name, tensor in tensors.items() if name in own or name not in _COUNTERS}
    # The first of equals wins, so a name loses no more than it must.
    best = max(_stripped(list(kept), _DEPTH), key=lambda names: len(set(names).intersection(own)))
    return dict(zip(best, kept.values(), strict=True))


def _stripped(names: list[str], depth: int) -> Iterator[list[str]]:
    """The names, and what is left of them without prefixes, in any order of these; no two become one."""
    level = [names]
    for _ in range(depth):
        yield from level
        longer, level = level, []
        for each in longer:
            for prefix in _PREFIXES:
                shorter = [name.removeprefix(prefix) for name in each]
                if shorter != each and len(set(shorter)) == len(shorter):
                    level.append(shorter)
    yield from level


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
    content = _unwrapped(content)
    if not (isinstance(content, Mapping) and content and all(_is_entry(*item) for item in content.items())):
        raise CheckpointError(
            f"{path} holds {_described(content)}; expected a state dict (name: tensor), bare or under one of "
            f"{', '.join(_WRAPPERS)}"
        )
    return dict(content)


def _unwrapped(content: object) -> object:
    """What lies below the known keys, which may be nested."""
    while isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    return content


def _is_entry(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)


def _described(content: object) -> str:
    if isinstance(content, Mapping):
        return f"a mapping with the keys {', '.join(map(repr, list(content)[:_NAMED])) or '(none)'}"
    return f"a {type(content).__name__}"
